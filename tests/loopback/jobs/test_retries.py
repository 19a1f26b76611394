"""What may pass is tried again, under a scope of its own; what a script does itself is not."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.core.events import Spec
from punchlib.errors import (
    NoRoute,
    PeerSilent,
    PunchError,
    RendezvousTimeout,
    StreamBroken,
    UsageError,
)
from punchlib.jobs import attempts as attempts_module
from punchlib.jobs import manifest
from punchlib.jobs.attempts import Attempts, Keeping
from punchlib.jobs.events import EventSink, JobEvent
from punchlib.jobs.launch import Launcher, NodeLost
from punchlib.jobs.report import Outcome
from punchlib.jobs.runner import JobRunner, RunRequest
from punchlib.local.cloud import LocalCloud
from punchlib.node.protocol import Event, Result, ScriptResult
from punchlib.runs import cost, run_folder
from punchlib.runtime import markers, pashlib, state
from tests.support.jobgen import sort_job


class Unlucky:
    """A launcher that loses its first nodes, once they have run."""

    def __init__(self, launcher: Launcher, times: int, error: NodeLost) -> None:
        self._launcher = launcher
        self._times = times
        self._error = error
        self._lock = threading.Lock()

    def run(self, event: Event) -> Result:
        result = self._launcher.run(event)
        with self._lock:
            self._times -= 1
            if self._times >= 0:
                raise self._error
        return result

    def stop(self) -> None:
        self._launcher.stop()


class Trial:
    """A sort whose Lambda nodes may be unlucky."""

    def __init__(self, cloud: LocalCloud, folder: Path, **unlucky: Any) -> None:
        self.config = Config.from_env()
        self.s3: Any = client("s3", self.config)
        self.runners: list[JobRunner] = []
        self.seen: list[JobEvent] = []
        launchers = dict(cloud.launchers)
        if unlucky:
            launchers["lambda"] = Unlucky(launchers["lambda"], **unlucky)
        job = manifest.load(folder)

        def make(events: EventSink) -> JobRunner:
            request = RunRequest(timeout=60)
            self.runners.append(JobRunner(job, request, launchers, self.s3, self.config, events))
            return self.runners[-1]

        keeping = Keeping(run_folder.runs_root(), {"job": str(folder)}, cost.load_prices())
        self.attempts = Attempts(make, EventSink(self.seen.append), 2, keeping)

    def warnings(self) -> str:
        return "\n".join(e.text for e in self.seen if e.kind == "warning")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts_module, "FIRST_PAUSE", 0.1)


def test_a_node_that_was_lost(cloud: LocalCloud, sort: Path) -> None:
    lost = NodeLost("the worker failed: Runtime.ExitError", may_pass=True)
    trial = Trial(cloud, sort, times=1, error=lost)
    assert trial.attempts.run().to_json()["ok"] is True
    first, second = trial.runners
    assert first.report.job_id != second.report.job_id
    assert "that may pass: runs again in" in trial.warnings()
    assert "Runtime.ExitError" in trial.warnings()
    body = trial.s3.get_object(Bucket=trial.config.bucket, Key=sort_job(2).output)["Body"]
    assert body.read() == b"a\nb\nc\n"
    # Both runs are kept.
    for runner, well in ((first, False), (second, True)):
        folder = run_folder.find(runner.report.job_id)
        assert run_folder.load_report(folder)["ok"] is well


def test_not_for_ever(cloud: LocalCloud, sort: Path) -> None:
    lost = NodeLost("the worker failed: again", may_pass=True)
    trial = Trial(cloud, sort, times=100, error=lost)
    with pytest.raises(PunchError, match="the worker failed: again"):
        trial.attempts.run()
    assert len(trial.runners) == 3


@pytest.mark.parametrize(
    "message", ["the worker ran out of memory", "Lambda refused to run 'f': AccessDenied"]
)
def test_what_would_only_fail_again(cloud: LocalCloud, sort: Path, message: str) -> None:
    trial = Trial(cloud, sort, times=100, error=NodeLost(message))
    with pytest.raises(PunchError, match=message):
        trial.attempts.run()
    assert len(trial.runners) == 1


def test_a_script_that_fails_by_itself(cloud: LocalCloud, sort: Path) -> None:
    script = sort / "worker1.sh"
    script.write_text(script.read_text().replace("mkfifo", "exit 3\nmkfifo", 1))
    trial = Trial(cloud, sort)
    with pytest.raises(PunchError, match="its script exited 3"):
        trial.attempts.run()
    assert len(trial.runners) == 1
    assert trial.warnings() == ""


@pytest.mark.parametrize(
    ("error", "may_pass"),
    [
        (StreamBroken("the connection was reset"), True),
        (PeerSilent("nothing heard"), True),
        (RendezvousTimeout("the peer never registered"), True),
        (NoRoute("none"), False),
        (UsageError("no such FIFO"), False),
        (OSError("bad"), False),
    ],
)
def test_what_a_stream_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, may_pass: bool
) -> None:
    """From the marker that `pashlib` leaves to the word of the runner."""
    monkeypatch.setattr(state, "_kept", None)
    monkeypatch.setenv("PUNCH_STATE_DIR", str(tmp_path / "state"))
    state.prepare_folder(str(tmp_path / "state"))
    pashlib.mark(Spec("k", "0", "1", sending=True), error)
    [marker] = markers.failures([str(tmp_path / "state")])
    result = Result((ScriptResult("n", "f", 0, 1, failures=(marker,)),))
    [script] = Result.from_json(json.loads(json.dumps(result.to_json()))).scripts
    assert Outcome("n", "ec2", 0.0, 1.0, script).may_pass is may_pass
