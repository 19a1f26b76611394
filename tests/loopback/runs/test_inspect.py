"""`punch inspect`: of a run that stands, one that failed, and of keys in the table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.core.candidates import Candidate, CandidateType, TransportAddress
from punchlib.core.records import Filtering, Mapping, Nat, Record, Withdrawal
from punchlib.errors import Cause
from punchlib.local.cloud import LocalCloud
from punchlib.runs import meeting_point, run_folder
from tests.support.jobgen import sort_job
from tests.support.jobtools import lasting_job, wait_until

PUNCH = [sys.executable, "-m", "punchlib.cli.main"]
HERE = TransportAddress("192.0.2.1", 4000)
NOW = 1_764_141_600.0


def inspect(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PUNCH, "inspect", *args], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def standing(state: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A job one of whose workers has a FIFO that nobody reads."""
    lasting_job(state / "job")
    script = state / "job/worker1.sh"
    text = script.read_text()
    # Beside its stages; the checks before the start do not see it.
    stray = "bash -c 'mkfifo /tmp/orphan; cat /etc/hostname >/tmp/orphan' &"
    assert "rm_pash_fifos\nmkfifo" in text
    script.write_text(text.replace("rm_pash_fifos\nmkfifo", f"rm_pash_fifos\n{stray}\nmkfifo"))
    process = subprocess.Popen([*PUNCH, "run", "--local", str(state / "job")])
    wait_until(lambda: _connected() >= 8)
    yield process
    process.terminate()
    assert process.wait(60) == 143


def _connected() -> int:
    runs = run_folder.all_runs()
    moments = run_folder.load_moments(runs[0], run_folder.LIVE) if runs else []
    return sum(m.event == "connection.connected" for m in moments)


def test_a_run_that_stands(standing: subprocess.Popen[bytes]) -> None:
    began = time.monotonic()
    done = inspect()
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < 60
    text = done.stdout
    assert "runs, with 4 nodes" in text
    nodes = {line.split()[0] for line in text.splitlines() if not line.startswith(" ")}
    assert {"merger", "splitter", "worker1", "worker2"} <= nodes
    parts = text.split("\nworker1 (lambda): running")
    worker = parts[1].split("\nworker2")[0]
    assert " sort" in worker
    assert "connected by host" in worker or "moving by host" in worker
    assert "did not answer" not in text
    # The one FIFO that is in nobody's way but its own, and no other.
    assert "/tmp/orphan: " in worker
    assert "1 of them not open at both ends" in worker
    other = parts[1].split("\nworker2")[1]
    assert "0 of them not open at both ends" in other


def test_a_run_that_failed(state: Path) -> None:
    job = sort_job(2)
    job.write(state / "job")
    run = [*PUNCH, "run", "--local", str(state / "job"), "--env", "PUNCH_TIMEOUT=1"]
    # The input is not there.
    done = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    text = inspect().stdout
    assert "failed after" in text
    assert "the run failed:" in text
    assert "NoSuchKey" in text


def test_what_is_neither(state: Path, cloud: LocalCloud) -> None:
    done = inspect("/no/where")
    assert done.returncode == 2
    assert "is not a run's folder" in done.stderr
    assert "no run is kept" in inspect().stderr


def test_a_key(state: Path, cloud: LocalCloud) -> None:
    config = Config.from_env()
    table = client("dynamodb", config)
    key = f"key-{os.getpid()}"
    record = Record(HERE, HERE, side="ab" * 8, ts=int(time.time() * 1000) - 5000).to_json()
    table.update_item(
        TableName=_made(config.table),
        Key={"key": {"S": key}},
        UpdateExpression="SET #n = :r",
        ExpressionAttributeNames={"#n": "N_0"},
        ExpressionAttributeValues={":r": {"S": record}},
    )
    text = inspect(key).stdout
    assert f"{key}: 1 ends have written here" in text
    assert "  0: registered " in text
    assert "0 waits for its peer, which has not come" in text
    assert "nobody is registered" in inspect(f"{key}-other").stdout


def _made(name: str) -> str:
    import asyncio

    from punchlib.rendezvous.dynamodb import DynamoDbStore

    async def make() -> None:
        store = DynamoDbStore(lambda: client("dynamodb", Config.from_env()), table=name)
        await store.read([])
        await store._create_table()

    asyncio.run(make())
    return name


def record(age: float = 5.0, attempt: int = 1, nat: Nat | None = None) -> str:
    candidates = (Candidate(CandidateType.SRFLX, HERE),)
    ts = int((NOW - age) * 1000)
    made = Record(HERE, HERE, side="ab" * 8, attempt=attempt, ts=ts, candidates=candidates)
    return json.dumps(json.loads(made.to_json()) | ({"nat": vars(nat)} if nat else {}))


SYMMETRIC = Nat(Mapping.DEPENDENT, Filtering.DEPENDENT)
CONE = Nat(Mapping.INDEPENDENT, Filtering.DEPENDENT)
OPEN = Nat(Mapping.INDEPENDENT, Filtering.INDEPENDENT)


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ({}, "nobody is registered"),
        ({"0": record()}, "0 waits for its peer, which has not come"),
        (
            {"0": record(age=400)},
            "400 s ago for its attempt 1, at 192.0.2.1:4000, which may be stale",
        ),
        ({"0": record(age=-90)}, "90 s in the future by our clock"),
        ({"0": record(), "1": record()}, "they are connecting"),
        ({"0": record(), "1": record(attempt=3)}, "one end is an attempt ahead"),
        ({"0": record(age=900), "1": record()}, "one record is of an earlier run"),
        (
            {"0": record(nat=SYMMETRIC), "1": record(nat=CONE)},
            "no direct connection can be, the S3 route is used",
        ),
        ({"0": record(nat=SYMMETRIC), "1": record(nat=OPEN)}, "they are connecting"),
        (
            {"0": Withdrawal("ab", 6, Cause("sort \x1bwas killed", "w1")).to_json(), "1": record()},
            "0: gave up with status 6: sort \\x1bwas killed (first said by w1)",
        ),
        (
            {"0": '{"local_addr": "10.0.0.1:1", "external_addr": "192.0.2.9:7"}', "1": record()},
            "an old (v1) peer at 192.0.2.9:7",
        ),
        ({"0": "garbage \x1b[31m"}, "what stands there is no record"),
        ({"0": '{"v": 9, "local_addr": "10.0.0.1:1", "external_addr": "1.2.3.4:7"}'}, "version 9"),
    ],
)
def test_in_words(ends: dict[str, str], said: str) -> None:
    item = {f"N_{label}": {"S": text} for label, text in ends.items()}
    lines = meeting_point.explain("job/k", item, NOW)
    assert said in "\n".join(lines)
    assert all(line.isprintable() for line in lines)
