"""Runs as `punch run` leaves them behind, recorded once from real jobs on this machine.

    python -m tests.support.recorded_runs NAME [DIR]   records one of RUNS anew, or into DIR
    python -m tests.support.recorded_runs all          records all anew

`unpack` gives one back as a run's folder: `run.json` and `events.jsonl` (docs/events.md).
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from punchlib.runs import run_folder, timeline
from punchlib.runs.timeline import Moment
from tests.support.jobgen import sort_job
from tests.support.jobgen_draft import Draft
from tests.support.jobgen_wide import bigrams
from tests.support.texts import english

FILES = (run_folder.REPORT, run_folder.EVENTS)
FOLDER = Path(__file__).parent / "runs"


def broken_sort() -> Draft:
    """The sort of four nodes; a worker dies in mid-stream, and says so in odd characters."""
    job = sort_job(2)
    worker = job.script("worker1")
    stage = next(s for s in worker.stages if " sort " in s)
    bad = (
        "bash -c 'head -c 200000; echo \"no <space> left & \\033[31mred\\033[0m\" >&2; kill -9 $$'"
    )
    worker.stages[worker.stages.index(stage)] = stage.replace(" sort ", f" {bad} ")
    return job


#: Name -> the job, bytes of its input.
RUNS: Mapping[str, tuple[Callable[[], Draft], int]] = {
    "sort": (lambda: sort_job(2), 30_000_000),
    "wide": (bigrams, 1_700_000),
    "broken": (broken_sort, 30_000_000),
}


def record(draft: Draft, size: int, folder: Path) -> None:
    """Runs a job as a user does and copies the run's folder.

    Args:
        draft: the job.
        size: bytes of its input.
        folder: for run.json and events.jsonl; it need not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        draft.write(top / draft.name)
        (top / "in.txt").write_bytes(english(size, seed=5))
        command = [sys.executable, "-m", "punchlib.cli.main", "run", "--local", draft.name]
        command += ["--put", f"{draft.inputs[0]}=in.txt", "--get", f"{draft.output}=out.txt"]
        path = f"{Path.cwd()}:{os.environ.get('PYTHONPATH', '')}"
        env = os.environ | {"XDG_STATE_HOME": scratch, "PYTHONPATH": path}
        subprocess.run(command, cwd=scratch, env=env, check=False)
        (run,) = (top / "punch/runs").iterdir()
        for file in FILES:  # names of this machine and of the moment are nobody's business
            text = (run / file).read_text().replace(scratch, "/tmp/jobs")
            name = f'"host.name": "{socket.gethostname()}"'
            (folder / file).write_text(text.replace(name, '"host.name": "laptop"'))


def unpack(name: str, folder: Path) -> Path:
    """One of the recorded runs, as a run's folder below `folder`."""
    run = folder / name
    run.mkdir(parents=True)
    for file in FILES:
        (run / file).write_bytes(gzip.decompress((FOLDER / f"{name}.{file}.gz").read_bytes()))
    return run


def load(name: str) -> tuple[list[Moment], dict[str, Any]]:
    """One of the recorded runs: its events, and its run.json."""
    events = gzip.decompress((FOLDER / f"{name}.events.jsonl.gz").read_bytes()).decode()
    run = json.loads(gzip.decompress((FOLDER / f"{name}.run.json.gz").read_bytes()))
    return timeline.read(events.splitlines()), run


def main(arguments: list[str]) -> None:
    names = arguments[:1] if arguments[0] != "all" else list(RUNS)
    for name in names:
        draft, size = RUNS[name]
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(arguments[1]) if arguments[1:] else Path(scratch)
            record(draft(), size, folder)
            for file in FILES if not arguments[1:] else ():
                packed = gzip.compress((folder / file).read_bytes(), mtime=0)
                (FOLDER / f"{name}.{file}.gz").write_bytes(packed)


if __name__ == "__main__":
    main(sys.argv[1:])
