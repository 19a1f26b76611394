"""A file that appears whole or not at all, and of which whoever is killed leaves nothing behind."""

from __future__ import annotations

import io
import os
import secrets
from pathlib import Path


class NewFile:
    """A file in the making: it has no name before it is kept (open(2), O_TMPFILE).

    Where the file system has no such files it has one beside the target.

    Args:
        target: its name to be (`storage.check_target`); a file of that name is replaced.

    Attributes:
        out: where its bytes go, unbuffered.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._part = target.with_name(f"{target.name}.part-{secrets.token_hex(4)}")
        self.out = self._open()

    def keep(self) -> None:
        """Gives it its name.

        Raises:
            OSError: it cannot have it.
        """
        fd = self.out.fileno()
        os.close(os.dup(fd))  # on NFS only now it is known that there was room (close(2))
        if not os.fstat(fd).st_nlink:
            # With a folder to start from: only then is it linkat(), which follows this link.
            os.link(f"/proc/self/fd/{fd}", self._part, src_dir_fd=fd, follow_symlinks=True)
        self._part.rename(self._target)
        self.out.close()

    def drop(self) -> None:
        """Takes it away, unless it was kept."""
        self.out.close()
        self._part.unlink(missing_ok=True)

    def _open(self) -> io.FileIO:
        try:
            fd = os.open(self._target.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        except OSError:  # there are none here; or what is wrong is wrong with a name, too
            return io.FileIO(self._part, "x")
        return io.FileIO(fd, "w")
