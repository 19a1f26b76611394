"""A warm worker keeps nothing of the event before: processes, files, shared memory.

On Lambda a worker serves one event after the other, of one job and of the next, and a script may
leave a daemon, gigabytes in /tmp, or a FIFO that makes the next script's mkfifo fail. A process
that left its group and cleared its environment would even read the next job's key from /proc. So
this process adopts every orphan below it (prctl(2), PR_SET_CHILD_SUBREAPER), notes what is there
before an event, and takes away whatever came since.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_SET_CHILD_SUBREAPER = 36
_IPC_RMID = 0
#: Where files of a script may lie; both are the worker's alone.
_FOLDERS = (Path("/tmp"), Path("/dev/shm"))
#: Seconds for killed processes to be gone; one that is stuck in the kernel must not hold us up.
_PATIENCE = 2.0

_libc = ctypes.CDLL(None, use_errno=True)


class CleanSlate:
    """`with` it around each event, in a process whose /tmp nobody else uses.

    Processes that run when it is entered (the node engine) stay, with what they own.
    """

    def __init__(self) -> None:
        _libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def __enter__(self) -> Self:
        self._processes = {pid for pid, _ in _descendants()}
        self._files = set(_files())
        self._ipc = set(_ipc())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._end_processes()
        for path in set(_files()) - self._files:
            if path.is_dir() and not path.is_symlink():
                # A folder without rights for its owner is emptied as well.
                shutil.rmtree(path, onerror=_with_all_rights)
            else:
                path.unlink(missing_ok=True)
        for call, number in set(_ipc()) - self._ipc:
            _remove_ipc(call, number)

    def _end_processes(self) -> None:
        """Until none is left: what is forked while we look is found by the next look."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            new = [(pid, parent) for pid, parent in _descendants() if pid not in self._processes]
            if not new:
                return
            for pid, parent in new:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                if parent == os.getpid():
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(pid, os.WNOHANG)
            time.sleep(0.001)


def _descendants() -> list[tuple[int, int]]:
    """(pid, parent) of every process below this one, zombies included."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                # The second field, a name in brackets, may hold anything.
                fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
                parents[int(folder.name)] = int(fields[1])

    def below(pid: int) -> bool:
        while pid := parents.get(pid, 0):
            if pid == os.getpid():
                return True
        return False

    return [(pid, parent) for pid, parent in parents.items() if below(pid)]


def _files() -> list[Path]:
    return [path for folder in _FOLDERS if folder.is_dir() for path in folder.iterdir()]


def _ipc() -> list[tuple[str, int]]:
    """System V objects of this user: the call that removes each, and its identifier."""
    found = []
    for name, call in (("shm", "shmctl"), ("sem", "semctl"), ("msg", "msgctl")):
        with contextlib.suppress(OSError):
            header, *rows = Path(f"/proc/sysvipc/{name}").read_text().splitlines()
            owner = header.split().index("uid")
            # The key, then the identifier.
            objects = [(int(row[1]), int(row[owner])) for row in map(str.split, rows)]
            found += [(call, number) for number, uid in objects if uid == os.getuid()]
    return found


def _remove_ipc(call: str, number: int) -> None:
    arguments = (number, 0, _IPC_RMID) if call == "semctl" else (number, _IPC_RMID, None)
    getattr(_libc, call)(*arguments)


def _with_all_rights(_function: object, path: str, _error: object) -> None:
    """What rmtree could not read or remove: once more, with all rights on it and its folder."""
    for name in (Path(path).parent, Path(path)):
        if not name.is_symlink():
            with contextlib.suppress(OSError):
                name.chmod(0o700)
    if Path(path).is_dir() and not Path(path).is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            Path(path).unlink()
