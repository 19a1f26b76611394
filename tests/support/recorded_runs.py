"""Runs as `punch run` leaves them behind, recorded once from real jobs on this machine.

    python -m tests.support.recorded_runs NAME DIR     records one of RUNS into DIR
    python -m tests.support.recorded_runs all          records all anew, into tests/support/runs

`unpack` gives one back as a run's folder: `run.json` and `events.jsonl` (docs/events.md).
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.errors import PunchError
from punchlib.jobs import manifest, timeline
from punchlib.jobs.events import EventSink, JobEvent
from punchlib.jobs.launch import Launcher
from punchlib.jobs.placement import Place
from punchlib.jobs.runner import JobRunner, RunRequest
from punchlib.jobs.timeline import Moment
from punchlib.local.cloud import LocalCloud
from punchlib.node.protocol import Event, Result
from tests.support.jobgen import sort_job
from tests.support.jobgen_draft import Draft
from tests.support.jobgen_wide import bigrams
from tests.support.texts import english

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


class Recorder:
    """Takes down a run: what its runner says, and what comes with its nodes' results."""

    def __init__(self) -> None:
        self.began = time.time()
        self.moments: list[Moment] = []

    def observe(self, event: JobEvent) -> None:
        facts = {"punch.text": event.text}
        name = f"run.{event.kind.replace('-', '_')}"
        self.moments.append(Moment(event.at, event.node, name, facts))

    def around(self, launcher: Launcher) -> Launcher:
        return _Recorded(launcher, self)


class _Recorded:
    """A launcher that keeps the events of what it launches."""

    def __init__(self, launcher: Launcher, recorder: Recorder) -> None:
        self._launcher, self._recorder = launcher, recorder

    def run(self, event: Event) -> Result:
        sent = time.time()
        result = self._launcher.run(event)
        ahead = timeline.ahead(result.clock, sent, time.time())
        found = timeline.moments(result.events, self._recorder.began, ahead)
        self._recorder.moments.extend(found)
        return result

    def stop(self) -> None:
        self._launcher.stop()


def record(cloud: LocalCloud, draft: Draft, size: int, folder: Path) -> None:
    """Runs a job and writes the run's folder.

    Args:
        cloud: runs it.
        draft: the job.
        size: bytes of its input.
        folder: for run.json and events.jsonl; it need not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        draft.write(Path(scratch) / "job")
        (Path(scratch) / "in.txt").write_bytes(english(size, seed=5))
        job = manifest.load(Path(scratch) / "job")
        request = RunRequest(
            {draft.inputs[0]: Path(scratch) / "in.txt"},
            {draft.output: Path(scratch) / "out.txt"},
            timeout=300,
        )
        config = Config.from_env()
        recorder = Recorder()
        launchers: dict[Place, Launcher] = {
            place: recorder.around(launcher) for place, launcher in cloud.launchers.items()
        }
        sink = EventSink(recorder.observe)
        recorder.observe(JobEvent(0.0, "step", f"a run of {draft.name}"))
        recorder.moments[0] = Moment(0.0, "", "run.started", recorder.moments[0].attributes)
        runner = JobRunner(job, request, launchers, client("s3", config), config, sink)
        failed: PunchError | None = None
        try:
            runner.run()
        except PunchError as error:
            failed = error
        facts: dict[str, Any] = {"punch.ok": failed is None}
        recorder.moments.append(Moment(sink.elapsed(), "", "run.ended", facts))
        about = runner.report.to_json(failed) | {"began": recorder.began, "job": draft.name}
        # Names of this machine and of the moment are nobody's business.
        texts = [
            json.dumps(about, indent=1),
            "".join(
                json.dumps(m.to_json()) + "\n" for m in sorted(recorder.moments, key=lambda m: m.at)
            ),
        ]
    for name, text in zip(("run.json", "events.jsonl"), texts, strict=True):
        (folder / name).write_text(text.replace(scratch, "/tmp/job"))


def unpack(name: str, folder: Path) -> Path:
    """One of the recorded runs, as a run's folder below `folder`."""
    run = folder / name
    run.mkdir(parents=True)
    for file in ("run.json", "events.jsonl"):
        (run / file).write_bytes(gzip.decompress((FOLDER / f"{name}.{file}.gz").read_bytes()))
    return run


def load(name: str) -> tuple[list[Moment], dict[str, Any]]:
    """One of the recorded runs: its events, and its run.json."""
    events = gzip.decompress((FOLDER / f"{name}.events.jsonl.gz").read_bytes()).decode()
    run = json.loads(gzip.decompress((FOLDER / f"{name}.run.json.gz").read_bytes()))
    return timeline.read(events.splitlines()), run


def main(arguments: list[str]) -> None:
    with LocalCloud() as cloud:
        if arguments[0] != "all":
            draft, size = RUNS[arguments[0]]
            record(cloud, draft(), size, Path(arguments[1]))
            return
        for name, (draft, size) in RUNS.items():
            with tempfile.TemporaryDirectory() as scratch:
                record(cloud, draft(), size, Path(scratch))
                for file in Path(scratch).iterdir():
                    packed = gzip.compress(file.read_bytes(), mtime=0)
                    (FOLDER / f"{name}.{file.name}.gz").write_bytes(packed)


if __name__ == "__main__":
    main(sys.argv[1:])
