"""A folder in /tmp that is removed with its process, or by the next one where that was killed.

Whoever uses one holds a lock on it, which the kernel lets go of with the last of its processes.
Those of earlier releases were not locked, so the name says which are.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_LOCKED = ".locked"
#: Tries to remove one, and seconds between them.
_TRIES, _PAUSE = 100, 0.05


@contextlib.contextmanager
def folder(prefix: str) -> Iterator[Path]:
    """A new folder for the user alone; first removes those of its kind that nobody uses any more.

    Raises:
        OSError: there is no room for one.
    """
    path = name(prefix)
    lock = make(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def name(prefix: str) -> Path:
    """A name for one; those with the same prefix are of one kind."""
    return Path(tempfile.gettempdir()) / f"{prefix}-{os.urandom(8).hex()}{_LOCKED}"


def make(path: Path) -> int:
    """Makes a folder that has such a name, as `folder` does; the descriptor that holds it.

    Raises:
        OSError: there is no room for it.
    """
    prefix, _, _ = path.name.rpartition("-")
    for other in path.parent.glob(f"{prefix}-*{_LOCKED}"):
        _remove_unused(other)
    while True:
        path.mkdir(mode=0o700)
        # Another one may take it for unused before it is locked.
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return lock
            os.close(lock)


def remove(path: Path) -> bool:
    """Removes a folder into which dying processes may still write for a moment.

    Returns:
        False when it is still there; then it is left to the next of its kind.
    """
    for _ in range(_TRIES):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return True
        time.sleep(_PAUSE)
    return False


def unused(folder: Path) -> list[Path]:
    """Those of any kind that nobody uses any more, of this user; they are not touched."""
    found = []
    for path in sorted(folder.glob(f"punch-*-*{_LOCKED}")):
        with _unused(path) as is_unused:
            if is_unused:
                found.append(path)
    return found


def _remove_unused(path: Path) -> None:
    with _unused(path) as is_unused:
        if is_unused:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _unused(path: Path) -> Iterator[bool]:
    """Whether it is ours and nobody holds it; then nobody else can, within the block."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False  # a link, a file, another user's, or gone
        return
    try:
        found = os.fstat(lock)
        # A sandbox makes one of the same name, to show in it what it keeps.
        ours = found.st_uid == os.getuid() and not found.st_mode & 0o077
        if ours:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        ours = False  # its owner lives
    try:
        yield ours
    finally:
        os.close(lock)
