"""One cause, told once by `punch run`, and the same by `punch inspect` and `punch logs`."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.errors import PunchError
from punchlib.jobs import manifest
from punchlib.jobs.attempts import Attempts, Keeping
from punchlib.jobs.events import EventSink
from punchlib.jobs.launch import Launcher
from punchlib.jobs.runner import JobRunner, RunRequest
from punchlib.local.cloud import LocalCloud
from punchlib.node.protocol import Event, Result, script_key
from punchlib.runs import cost, run_folder
from tests.support.jobgen import sort_job
from tests.support.jobtools import command, kill, lasting_job, processes, wait_until

PUNCH = [sys.executable, "-m", "punchlib.cli.main"]


class Before:
    """A launcher that does something before it starts a node."""

    def __init__(self, launcher: Launcher, act: Callable[[Event], None]) -> None:
        self._launcher = launcher
        self._act = act

    def run(self, event: Event) -> Result:
        self._act(event)
        return self._launcher.run(event)

    def stop(self) -> None:
        self._launcher.stop()


class Trial:
    """A job that is run once, kept, and asked about."""

    def __init__(
        self,
        cloud: LocalCloud,
        folder: Path,
        before: Callable[[Event], None] = lambda event: None,
        **request: Any,
    ) -> None:
        self.config = Config.from_env()
        self.s3: Any = client("s3", self.config)
        self.runner: JobRunner | None = None
        launchers = {p: Before(one, before) for p, one in cloud.launchers.items()}
        job = manifest.load(folder)

        def make(events: EventSink) -> JobRunner:
            wanted = RunRequest(**{"timeout": 60, **request})
            self.runner = JobRunner(job, wanted, launchers, self.s3, self.config, events)
            return self.runner

        keeping = Keeping(run_folder.runs_root(), {"job": str(folder)}, cost.load_prices())
        self._attempts = Attempts(make, EventSink(lambda event: None), 0, keeping)
        self._error: PunchError | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._attempts.run()
        except PunchError as error:
            self._error = error

    @property
    def id(self) -> str:
        return wait_until(lambda: self.runner).report.job_id  # type: ignore[union-attr]

    def failure(self) -> str:
        """What the run says of it."""
        self._thread.join(120)
        assert not self._thread.is_alive()
        assert self._error is not None, "the job went well"
        return self._error.message

    def told(self, tool: str) -> str:
        """What `punch inspect` or `punch logs` says of the run."""
        return subprocess.run(
            [*PUNCH, tool, self.id], capture_output=True, text=True, timeout=60, check=True
        ).stdout


def assert_all_say(trial: Trial, *causes: str) -> None:
    message = trial.failure()
    for cause in causes:
        assert cause in message
        for tool in ("inspect", "logs"):
            assert cause in trial.told(tool), tool


def test_a_worker_that_is_killed(cloud: LocalCloud, tmp_path: Path) -> None:
    lasting_job(tmp_path)
    trial = Trial(cloud, tmp_path)

    def emulator() -> int:
        found = processes(f"PASH_JOB_ID={trial.id}")
        workers = [p for p in found if b"LEASH_ON_LAMBDA=" in _environ(p)]
        return workers[0] if any(command(p)[:1] == ["sort"] for p in workers) else 0

    kill(_root_of(wait_until(emulator)))
    assert_all_say(trial, "the worker died before it gave a result")


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _root_of(pid: int) -> int:
    """The first process of the pid namespace that a process lives in: with it all of them die."""
    namespace = Path(f"/proc/{pid}/ns/pid").readlink()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status = (folder / "status").read_text()
                if (folder / "ns/pid").readlink() == namespace and status.split("NSpid:")[1].split(
                    "\n"
                )[0].split()[-1] == "1":
                    return int(folder.name)
            except OSError:
                continue
    raise AssertionError("no init")


def test_a_script_that_is_not_in_s3(cloud: LocalCloud, sort: Path) -> None:
    config = Config.from_env()

    def remove(event: Event) -> None:
        [task] = event.tasks
        if task.id == "worker2":
            key = script_key(task.folder_id, task.id)
            client("s3", config).delete_object(Bucket=config.bucket, Key=key)

    trial = Trial(cloud, sort, remove)
    assert_all_say(trial, "there is no script s3://punch/sls-scripts/", "worker2")


def test_a_fifo_that_nobody_reads(cloud: LocalCloud, sort: Path) -> None:
    """The stage that should read it sleeps."""
    script = sort / "worker1.sh"
    lines = script.read_text().splitlines()
    number = next(n for n, line in enumerate(lines) if "sort" in line and "<" in line)
    lines[number] = lines[number].replace("sort", "{ sleep 100; sort; }", 1)
    script.write_text("\n".join(lines) + "\n")
    trial = Trial(cloud, sort, timeout=8)
    message = trial.failure()
    assert "the time is up" in message
    assert "worker1" in message
    for tool in ("inspect", "logs"):
        assert "the time is up" in trial.told(tool)


def test_a_stun_server_that_is_dead(cloud: LocalCloud, sort: Path) -> None:
    """It ends right, by a way that needs none, and says why."""
    env = {"PASH_STUN_SERVER": "127.0.0.1:1", "PASH_STUN_TIMEOUT_MS": "1000"}
    trial = Trial(cloud, sort, env=env)
    trial._thread.join(120)
    assert trial._error is None
    assert "no STUN server told our address" in trial.told("logs")


def test_no_input(cloud: LocalCloud, sort: Path) -> None:
    config = Config.from_env()
    client("s3", config).delete_object(Bucket=config.bucket, Key=sort_job(2).inputs[0])
    assert_all_say(Trial(cloud, sort), "splitter", "NoSuchKey")


def test_a_script_that_exits(cloud: LocalCloud, sort: Path) -> None:
    script = sort / "worker1.sh"
    script.write_text(script.read_text().replace("mkfifo", "echo no luck >&2; exit 3\nmkfifo", 1))
    trial = Trial(cloud, sort)
    assert_all_say(trial, "its script exited 3", "no luck")
