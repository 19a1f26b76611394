"""Plain file descriptors, used well: FIFOs that must exist, large pipes, splice where possible.

No file objects: a descriptor of ours is closed by us or by the end of the process, never earlier
by the garbage collector, so a failure marker always comes before the end of file.
"""

from __future__ import annotations

import fcntl
import os
import stat

from punchlib.errors import UsageError

# As typing.TYPE_CHECKING, which takes 6 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

STDIN = "/dev/stdin"
#: What one pipe grows to. An unprivileged user has 64 MiB for all of them
#: (fs.pipe-user-pages-soft); past that, new pipes shrink to 8 KiB and everything crawls.
PIPE_SIZE = 256 * 1024
#: The most that we ask of one read or splice.
CHUNK = 1024 * 1024
#: Half of an unprivileged user's share, for one process with many pipes.
_SHARE = 32 * 1024 * 1024


def grow(fd: int, pipes: int = 1, size: int = PIPE_SIZE) -> None:
    """Enlarges a pipe if it is one, and as far as the system lets us.

    Args:
        fd: any descriptor.
        pipes: how many pipes this process grows; they share.
        size: how large it gets, unless they are too many.
    """
    while pipes * size > _SHARE and size > 65536:
        size //= 2
    try:
        if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < size:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
    except OSError:
        return  # not a pipe, or over the user's limit: it works as it is


def is_pipe(fd: int) -> bool:
    """Is this a pipe or a FIFO?"""
    return stat.S_ISFIFO(os.fstat(fd).st_mode)


def require(path: str) -> None:
    """Raises UsageError where `path` does not exist; never creates it."""
    if not os.path.exists(path):  # noqa: PTH110
        raise UsageError(f"no such file or FIFO: {path}", next_step=f"mkfifo {path!r} first")


def open_input(path: str, flags: int = 0) -> int:
    """Opens for reading; waits for a FIFO's writer unless `flags` have O_NONBLOCK."""
    require(path)
    if path == STDIN and not is_pipe(0):
        return os.dup(0)  # opened anew it would begin again, with what others have read from it
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)


def open_output(path: str) -> int:
    """Opens for writing what exists already; waits for a FIFO's reader."""
    require(path)
    return os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)


def read_exactly(fd: int, size: int) -> bytes:
    """Reads `size` bytes, fewer only at the end of the input."""
    data = os.read(fd, size)
    if len(data) == size or not data:
        return data
    parts = [data]
    missing = size - len(data)
    while missing and (data := os.read(fd, missing)):
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def write_all(fd: int, *buffers: bytes | memoryview) -> None:
    """Writes all of the buffers, with one system call when the descriptor takes it."""
    left: Sequence[bytes | memoryview] = buffers
    while True:
        written = os.writev(fd, left)
        rest = []
        for part in left:
            if written >= len(part):
                written -= len(part)
            else:
                rest.append(memoryview(part)[written:])
                written = 0
        if not rest:
            return
        left = rest


class Mover:
    """Moves bytes from one descriptor to others: by splice, or by copying where that fails.

    splice needs a pipe at one end, and some files refuse it (O_APPEND, some file systems).
    """

    def __init__(self, source: int) -> None:
        self._source = source
        self._copying: set[int] = set()

    def some(self, target: int, limit: int) -> int:
        """Moves at least one byte and at most `limit`; returns 0 at the end of the input."""
        if target not in self._copying:
            try:
                return os.splice(self._source, target, min(limit, CHUNK))
            except OSError as error:
                if not splice_refused(error):
                    raise
                self._copying.add(target)
        data = os.read(self._source, min(limit, PIPE_SIZE))
        if data:
            write_all(target, data)
        return len(data)

    def exactly(self, target: int, size: int) -> int:
        """Moves `size` bytes; returns how many were missing when the input ended."""
        while size:
            moved = self.some(target, size)
            if not moved:
                return size
            size -= moved
        return 0


def splice_refused(error: OSError) -> bool:
    """Was this error splice's own refusal, before any byte moved?"""
    import errno

    return error.errno in (errno.EINVAL, errno.ENOSYS)
