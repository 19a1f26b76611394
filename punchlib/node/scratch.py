"""A folder in /tmp that is removed with its process, or by the next one where that was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def folder(prefix: str) -> Iterator[Path]:
    """A new folder; first removes those of the same prefix, and of our user, that nobody uses.

    Whoever uses one holds a lock on it, which the kernel lets go of with the process.

    Raises:
        OSError: there is no room for one.
    """
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        _remove_unused(path)
    path, lock = _make(prefix)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _make(prefix: str) -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix))
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():  # else another one took it for unused before it was locked
            return path, lock
        os.close(lock)


def _remove_unused(path: Path) -> None:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return  # a link, a file, another user's, or gone
    try:
        if os.fstat(lock).st_uid == os.getuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    except BlockingIOError:
        return  # its owner lives
    finally:
        os.close(lock)
