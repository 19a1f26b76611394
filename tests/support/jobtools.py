"""Jobs that last, and a look at what runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.support.jobgen import sort_job
from tests.support.jobgen_draft import Draft

_T = TypeVar("_T")


def lasting_job(folder: Path) -> Draft:
    """A sort whose input does not end for a minute: every stage is up and waits."""
    job = sort_job(2)
    splitter = job.script("splitter")
    get = next(s for s in splitter.stages if "s3-get-object" in s)
    source = get.split()[-1]
    splitter.stages.remove(get)
    splitter.stage(f"( cat runtime/r_split; sleep 60 ) >{source}")
    job.inputs = []
    job.write(folder)
    return job


def processes(mark: str) -> list[int]:
    """All processes whose environment or command line holds `mark`."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                text = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in text:
                found.append(int(folder.name))
    return found


def command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def wait_until(what: Callable[[], _T], seconds: float = 60.0) -> _T:
    """The first true value of `what`, which a quiet machine has much sooner."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return value


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
