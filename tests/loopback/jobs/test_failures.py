"""What goes wrong on a node fails the job, names the node, and leaves no output."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.errors import JobFailed, StorageError
from punchlib.jobs import manifest, storage
from punchlib.jobs.events import EventSink
from punchlib.jobs.placement import Place
from punchlib.jobs.report import Report, first_cause
from punchlib.jobs.runner import JobRunner, RunRequest
from punchlib.local.cloud import LocalCloud
from punchlib.node.protocol import Event, Task
from punchlib.runtime import state
from tests.support.jobgen import sort_job
from tests.support.jobtools import command, kill, lasting_job, processes, wait_until

BEFORE = b"what was there before\n"


class Run:
    """A job in a thread, so that a test can interfere."""

    def __init__(self, cloud: LocalCloud, folder: Path, request: RunRequest | None = None) -> None:
        config = Config.from_env()
        self.s3: Any = client("s3", config)
        job = manifest.load(folder)
        sink = EventSink(lambda event: None)
        request = request or RunRequest(timeout=60)
        self._runner = JobRunner(job, request, cloud.launchers, self.s3, config, sink)
        self._error: JobFailed | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._runner.run()
        except JobFailed as error:
            self._error = error

    @property
    def job_id(self) -> str:
        return self._runner.report.job_id

    @property
    def report(self) -> Report:
        return self._runner.report

    def failure(self) -> JobFailed:
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert self._error is not None, "the job went well"
        return self._error

    def processes(self) -> list[int]:
        return processes(f"PASH_JOB_ID={self.job_id}")

    def find(self, name: str, *, on_lambda: bool) -> int:
        """The first process of that name on a node of that kind."""

        def look() -> int:
            for pid in self.processes():
                environ = Path(f"/proc/{pid}/environ")
                if command(pid)[:1] == [name] and (
                    (b"LEASH_ON_LAMBDA=" in environ.read_bytes()) == on_lambda
                ):
                    return pid
            return 0

        return wait_until(look)


def assert_nothing_written(run: Run, key: str) -> None:
    """The object from before is there, no upload is open, no script and no process is left."""
    bucket = Config.from_env().bucket
    assert run.s3.get_object(Bucket=bucket, Key=key)["Body"].read() == BEFORE
    assert not run.s3.list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert not run.s3.list_objects_v2(Bucket=bucket, Prefix="sls-scripts/").get("Contents")
    wait_until(lambda: not run.processes())


@pytest.fixture
def output(cloud: LocalCloud) -> str:
    """The key of the sort's output, with an object from before."""
    key = sort_job(2).output
    config = Config.from_env()
    client("s3", config).put_object(Bucket=config.bucket, Key=key, Body=BEFORE)
    return key


@pytest.mark.parametrize("place", ["lambda", "ec2"])
def test_a_script_that_is_not_in_s3(place: Place, cloud: LocalCloud) -> None:
    result = cloud.launchers[place].run(Event((Task("ghost", "no-folder"),)))
    assert not result.ok
    assert result.scripts[0].cause == "there is no script s3://punch/sls-scripts/no-folder/ghost.sh"


@pytest.mark.parametrize("culprit", ["worker1", "splitter"])
def test_a_script_that_exits_3(
    culprit: str, cloud: LocalCloud, output: str, tmp_path: Path
) -> None:
    lasting_job(tmp_path)
    script = tmp_path / f"{culprit}.sh"
    text = script.read_text().replace("rm_pash_fifos\nmkfifo", "echo no luck >&2; exit 3\nmkfifo")
    script.write_text(text)
    run = Run(cloud, tmp_path)
    error = run.failure()
    assert error.message.startswith(f"node {culprit} (")
    assert "its script exited 3" in error.message
    assert "| no luck" in error.message
    assert_nothing_written(run, output)


def test_the_sort_of_a_worker_is_killed(cloud: LocalCloud, output: str, tmp_path: Path) -> None:
    lasting_job(tmp_path)
    run = Run(cloud, tmp_path)
    kill(run.find("sort", on_lambda=True))
    error = run.failure()
    first = first_cause(run.report.outcomes)
    assert first is not None
    assert first.id in ("worker1", "worker2")
    assert error.message.startswith(f"node {first.id} (lambda) failed")
    assert "was killed by SIGKILL: sort" in error.message
    scripts = [o.script for o in run.report.outcomes if o.script]
    reported = [f for s in scripts for f in s.failures if f.kind == state.REPORTED]
    assert first.id in {f.origin for f in reported}
    assert {f.origin for f in reported} <= {o.id for o in run.report.outcomes}
    assert_nothing_written(run, output)


@pytest.mark.slow
def test_a_worker_is_killed(cloud: LocalCloud, output: str, tmp_path: Path) -> None:
    """The runtime of a Lambda worker dies, as when it runs out of memory."""
    lasting_job(tmp_path)
    run = Run(cloud, tmp_path)
    sort = run.find("sort", on_lambda=True)
    bash = _parent(sort)
    kill(_parent(bash))
    error = run.failure()
    assert "(lambda) failed" in error.message
    assert "the worker" in error.message
    assert_nothing_written(run, output)


@pytest.mark.slow
def test_the_merger_on_ec2_is_killed(cloud: LocalCloud, output: str, tmp_path: Path) -> None:
    lasting_job(tmp_path)
    run = Run(cloud, tmp_path)
    kill(_parent(run.find("sort", on_lambda=False)))
    error = run.failure()
    assert error.message.startswith("node merger (ec2) failed")
    assert "SIGKILL" in error.message
    assert_nothing_written(run, output)


@pytest.mark.slow
def test_the_time_is_up(cloud: LocalCloud, output: str, tmp_path: Path) -> None:
    lasting_job(tmp_path)
    # By then all streams are up, on a busy machine too: a quiet one needs a second.
    run = Run(cloud, tmp_path, RunRequest(timeout=15))
    error = run.failure()
    assert error.message.startswith("the time is up: after 15 s these nodes had not ended: ")
    assert "worker1" in error.message
    # Each says what it was doing, also where its tools run in the node engine; the peers of whoever
    # stopped first heard it from there, and a stage or the shell in front may have been the first.
    doing = r"stopped, while (sending|receiving), at byte \d+, waiting for \w+|ended by SIGTERM"
    doing += r"|the shell of the script ended before it had judged all stages"
    for node in ("splitter", "worker1", "worker2", "merger"):
        told = rf"(?m)^  \| {node}: pashlib \S+ (send|recv): .*({doing})"
        assert re.search(told, error.message), error.message
    assert "stopped, while" in error.message
    assert "taking its record back" not in error.message
    assert_nothing_written(run, output)


@pytest.mark.slow
def test_two_runs_of_one_job_at_once(cloud: LocalCloud, tmp_path: Path) -> None:
    """The same scripts and keys: the runs never meet, and one's failure is not the other's."""
    job = sort_job(2)
    job.write(tmp_path / "job")
    lasting_job(tmp_path / "failing")
    text = tmp_path / "in"
    text.write_bytes(b"b\nc\na\n" * 1000)
    out = tmp_path / "out"
    failing = Run(cloud, tmp_path / "failing")
    good = Run(cloud, tmp_path / "job", RunRequest({job.inputs[0]: text}, {job.output: out}, 60))
    kill(failing.find("sort", on_lambda=True))
    failing.failure()
    good._thread.join(60)
    assert out.read_bytes() == b"a\n" * 1000 + b"b\n" * 1000 + b"c\n" * 1000
    # Leave the bucket as the other tests expect it.
    good.s3.put_object(Bucket=Config.from_env().bucket, Key=job.output, Body=BEFORE)


def test_a_bucket_that_does_not_exist(cloud: LocalCloud) -> None:
    with pytest.raises(StorageError, match="the bucket 'nowhere' cannot be used: it does not"):
        storage.check_bucket(client("s3", Config.from_env()), "nowhere")


def _parent(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])
