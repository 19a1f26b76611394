"""CPU time and memory of this process and of all that it starts, counted by the kernel.

A control group counts also what nobody waits for: forks of the engine, processes in namespaces,
those that end between two looks. It needs root, and cgroup v1 or v2.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_ROOT = Path("/sys/fs/cgroup")
#: Seconds between two looks at the memory.
_LOOK = 0.1


class Meter:
    """A control group with this process in it, while the context lasts.

    Attributes:
        peak_mb: the most memory seen since `reset`: what belongs to processes, not the page cache.

    Raises:
        SystemExit: this machine gives us no control group.
    """

    def __init__(self) -> None:
        name = f"punch-bench-{os.getpid()}"
        self._groups: list[tuple[Path, Path]] = []
        try:
            if (_ROOT / "cgroup.controllers").exists():
                self._unified(name)
            else:
                self._separate(name)
        except OSError as error:
            raise SystemExit(f"this benchmark counts by a control group: {error}") from error
        self.peak_mb = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        return self._cpu()

    def members(self) -> list[int]:
        """The processes that are in it now."""
        text = (self._groups[0][0] / "cgroup.procs").read_text()
        return [int(pid) for pid in text.split()]

    def reset(self) -> None:
        """Begins to look for the peak anew."""
        self.peak_mb = 0.0

    def __enter__(self) -> Meter:
        for group, _ in self._groups:
            (group / "cgroup.procs").write_text(str(os.getpid()))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        for group, before in self._groups:
            (before / "cgroup.procs").write_text(str(os.getpid()))
            with contextlib.suppress(OSError):  # somebody is still in it: the caller has seen why
                group.rmdir()

    def _separate(self, name: str) -> None:
        cpu, memory = _ROOT / "cpuacct" / name, _ROOT / "memory" / name
        for group in (cpu, memory):
            group.mkdir()
            self._groups.append((group, group.parent / _own(group.parent.name).lstrip("/")))
        self._cpu: Callable[[], float] = lambda: int((cpu / "cpuacct.usage").read_text()) / 1e9
        self._stat, self._counted = memory / "memory.stat", ("total_rss", "total_shmem")

    def _unified(self, name: str) -> None:
        group = _ROOT / name
        group.mkdir()
        self._groups.append((group, _ROOT / _own("").lstrip("/")))
        self._cpu = lambda: _fields(group / "cpu.stat")["usage_usec"] / 1e6
        self._stat, self._counted = group / "memory.stat", ("anon", "shmem")

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK):
            fields = _fields(self._stat)
            used = sum(fields.get(name, 0) for name in self._counted) / 1e6
            self.peak_mb = max(self.peak_mb, used)


def _fields(file: Path) -> dict[str, int]:
    return {k: int(v) for k, v in (line.split() for line in file.read_text().splitlines())}


def group_cpu(pid: int) -> Callable[[], float]:
    """A clock: seconds of processor time of the control group that a process is in."""
    unified = (_ROOT / "cgroup.controllers").exists()
    group = _ROOT / ("" if unified else "cpuacct")
    group /= _own("" if unified else "cpuacct", pid).lstrip("/")
    if unified:
        return lambda: _fields(group / "cpu.stat")["usage_usec"] / 1e6
    return lambda: int((group / "cpuacct.usage").read_text()) / 1e9


def _own(controller: str, pid: int | str = "self") -> str:
    """A process's group in the hierarchy of `controller`; by default ours."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return path
    return "/"
