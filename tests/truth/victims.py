"""Finds the process that a case strikes, among all processes of this machine."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from tests.truth.scripts import Element

#: The variable that tells whose a process is.
RUN = "TRUTH_RUN"


@dataclass(frozen=True)
class Process:
    """One entry of /proc."""

    pid: int
    parent: int
    session: int


def processes() -> list[Process]:
    """All that run; no zombies."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError), open(f"{entry.path}/stat", "rb") as file:
                stat = file.read().rpartition(b")")[2].split()
                if stat[0] not in b"ZX":
                    found.append(Process(int(entry.name), int(stat[1]), int(stat[3])))
    return found


def below(root: int, among: list[Process]) -> list[int]:
    """The descendants of `root`, and whatever is in its session; not itself."""
    children: dict[int, list[int]] = {}
    for process in among:
        children.setdefault(process.parent, []).append(process.pid)
    found, new = {p.pid for p in among if p.session == root}, [root]
    while new:
        new = [child for pid in new for child in children.get(pid, ())]
        found.update(new)
    return sorted(found - {root})


def of_run(run: str, among: list[Process]) -> list[int]:
    """Those that a run of a case started by hand: a pid alone may meanwhile be another's."""
    mark = f"{RUN}={run}".encode()
    found = []
    for process in among:
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                found.append(process.pid)
    return found


def words(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return []
    return text.split("\0")[:-1]


def shell_of(fifos: str, among: list[Process]) -> int:
    """The bash that a handler runs a script with; 0 when there is none.

    Args:
        fifos: the folder of the script's FIFOs, which some of its stages name.
    """
    for process in among:
        if any(f"{fifos}/" in word for word in words(process.pid)):
            leader = words(process.session)
            if leader[:1] == ["bash"] and leader[1:] and leader[1].endswith(".sh"):
                return process.session
    return 0


def stage(element: Element, candidates: list[int]) -> int:
    """The process of a stage that is not ours."""
    return next((pid for pid in candidates if words(pid) == element.argv), 0)


def client(tool: str, fifos: list[str], candidates: list[int]) -> int:
    """The process of one of our tools; of several the one that names these FIFOs, where it does."""
    found = []
    for pid in candidates:
        line = words(pid)
        if line and Path(line[0]).name.startswith("python") and _runs(line, tool):
            found.append((any(w.endswith(f) for w in line for f in fifos), pid))
    return max(found)[1] if found else 0


def _runs(line: list[str], tool: str) -> bool:
    return any(word == tool or word.endswith(f"/{tool}") for word in line)


def worker(engine: int, path: str, among: list[Process]) -> int:
    """The engine's process that has `path` open; 0 when there is none."""
    return next((p for p in _children(engine, among) if path in _open(p)), 0)


def worker_below(engine: int, folder: str, among: list[Process]) -> int:
    """An engine's process that has something below `folder` open; 0 when there is none."""
    for pid in _children(engine, among):
        if any(path.startswith(folder) for path in _open(pid)):
            return pid
    return 0


def committer_worker(engine: int, folder: Path, others: set[str], among: list[Process]) -> int:
    """The engine's process that completes uploads for a script that runs in `folder`.

    Args:
        others: the FIFOs of the script: whoever has one open does something else.
    """
    for pid in _children(engine, among):
        with contextlib.suppress(OSError):
            there = Path(f"/proc/{pid}/cwd").readlink() == folder
            if there and not others.intersection(_open(pid)):
                return pid
    return 0


def _children(parent: int, among: list[Process]) -> list[int]:
    return [process.pid for process in among if process.parent == parent]


def _open(pid: int) -> list[str]:
    """What its descriptors are, as far as they have paths."""
    found = []
    with contextlib.suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(str(fd.readlink()))
    return found
