"""What a script's processes do right now, and which ends of its FIFOs are open.

A pipeline that stands has a process that waits for the other end of a FIFO. `punch inspect` asks
for this while the script runs; each process and each FIFO is an event (docs/events.md).
"""

# ruff: noqa: PTH116, PTH208 (paths in /proc are text here, and come by the thousand)

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from punchlib.node.event_log import EventLog
from punchlib.runtime import catalogue
from punchlib.runtime.events import FIFO

if TYPE_CHECKING:
    from punchlib.runtime.events import Value

#: How many of each are told, and how many folders are looked into.
MOST = 200
_FOLDERS = 2000
_TICKS = os.sysconf("SC_CLK_TCK")
#: A process that the node puts around the script.
_OURS = "punchlib/node/sandbox.py"
#: What the kernel calls a process that waits in open() for a FIFO's other end.
_IN_OPEN = ("wait_for_partner", "fifo_open")


@dataclass(frozen=True)
class Process:
    """A process of a script.

    Attributes:
        pid: as this machine has it.
        arguments: its command line.
        state: as /proc has it: R runs, S sleeps, D is in the kernel, T stands, Z has ended.
        seconds: of processor time.
        opening: it waits in open() for the other end of a FIFO.
    """

    pid: int
    arguments: tuple[str, ...]
    state: str
    seconds: float
    opening: bool

    @property
    def command(self) -> str:
        return " ".join(self.arguments)

    def served_paths(self) -> dict[str, str]:
        """The files that the engine has open for it, and how.

        Where the engine lives in another process namespace, its descriptors are not to be seen.
        """
        for index, argument in enumerate(self.arguments):
            tool = argument.rpartition("/")[2]
            if tool in catalogue.TOOLS and catalogue.TOOLS[tool].served:
                rest = list(self.arguments[index + 1 :])
                return {path: use for _, path, use in catalogue.paths(tool, rest)}
        return {}


@dataclass
class Fifo:
    """A FIFO of a script, and how many descriptors its two ends have."""

    path: str
    readers: int = 0
    writers: int = 0
    named_by: list[str] = field(default_factory=list)

    @property
    def trouble(self) -> str:
        """Which end is not open; "" when both are."""
        if self.readers and self.writers:
            return ""
        if self.readers:
            return "nobody writes"
        return "nobody reads" if self.writers else "neither end is open"


def tell(log: EventLog, node: str, state_dir: str, tmp: Path, word: str) -> None:
    """Tells of a script's processes and of the FIFOs that are not open at both ends.

    Args:
        log: where to.
        node: the script's id.
        state_dir: its state folder, as it knows it.
        tmp: the folder that it knows as /tmp.
        word: who asked for it; the last event has it.
    """
    known = processes(state_dir)
    all_fifos = fifos(tmp, known)
    waiting = [fifo for fifo in all_fifos if fifo.trouble]
    for process in known[:MOST]:
        facts: dict[str, Value] = {
            "process.pid": process.pid,
            "process.command_line": process.command,
        }
        facts |= {"process.cpu.time": process.seconds, "punch.state": process.state}
        log.tell(node, "node.process", facts | {"punch.opening": process.opening})
    for fifo in waiting[:MOST]:
        facts = {"file.path": fifo.path, "punch.readers": fifo.readers}
        facts |= {"punch.writers": fifo.writers, "punch.named_by": " | ".join(fifo.named_by)}
        log.tell(node, "node.fifo", facts)
    counts = {"punch.processes": len(known), "punch.fifos": len(all_fifos)}
    log.tell(node, "node.stock", {**counts, "punch.waiting": len(waiting), "punch.ask": word})


def processes(state_dir: str) -> list[Process]:
    """The processes that have this state folder in their environment, but for the engine's."""
    wanted = f"PUNCH_STATE_DIR={state_dir}".encode()
    found = []
    for pid in _pids():
        try:
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                process = _process(pid)
                if not any(a.endswith(_OURS) for a in process.arguments):
                    found.append(process)
        except (OSError, IndexError, ValueError):
            continue  # it has just ended
    return found


def fifos(tmp: Path, known: list[Process]) -> list[Fifo]:
    """The FIFOs below a script's /tmp.

    Args:
        tmp: the folder that the script knows as /tmp.
        known: its processes; a FIFO says which of them name it.
    """
    found: dict[tuple[int, int], Fifo] = {}
    for path, status in _fifos_below(tmp):
        fifo = Fifo(str(Path("/tmp") / path.relative_to(tmp)))
        for process in known:
            served = process.served_paths().get(fifo.path)
            fifo.readers += served == catalogue.READ
            fifo.writers += served == catalogue.WRITTEN
            if served or fifo.path in process.arguments:
                fifo.named_by.append(process.command)
        found[status.st_dev, status.st_ino] = fifo
    for pid in _pids():
        _count_ends(pid, found)
    return list(found.values())


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _process(pid: int) -> Process:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    arguments = tuple(command.rstrip("\0").split("\0"))
    # The name in parentheses may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    try:
        channel = Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        channel = ""
    seconds = (int(fields[11]) + int(fields[12])) / _TICKS
    return Process(pid, arguments, fields[0], seconds, channel in _IN_OPEN)


def _fifos_below(top: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for number, (folder, _, files) in enumerate(os.walk(top)):
        if number > _FOLDERS:
            return
        for name in files:
            path = Path(folder, name)
            try:
                status = path.lstat()
            except OSError:
                continue
            if stat.S_ISFIFO(status.st_mode) and not _is_ours(path):
                yield path, status


def _is_ours(path: Path) -> bool:
    """Does a FIFO belong to the node, and not to the script?"""
    return path.name.startswith(".punch-") or (path.parent.name, path.name) == ("state", FIFO)


def _count_ends(pid: int, found: dict[tuple[int, int], Fifo]) -> None:
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            status = os.stat(f"/proc/{pid}/fd/{fd}")
            fifo = found.get((status.st_dev, status.st_ino))
            if fifo is None or not stat.S_ISFIFO(status.st_mode):
                continue
            flags = _flags(pid, fd)
            if flags & os.O_PATH:
                continue  # it only names it
            access = flags & os.O_ACCMODE
            fifo.readers += access != os.O_WRONLY
            fifo.writers += access != os.O_RDONLY
    except OSError:
        return  # it has just ended, or is not ours


def _flags(pid: int, fd: str) -> int:
    for line in Path(f"/proc/{pid}/fdinfo/{fd}").read_text().splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8)
    return 0
