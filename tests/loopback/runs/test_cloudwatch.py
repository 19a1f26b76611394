"""A run's workers in CloudWatch: their streams are found by the job's id, and then read whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from punchlib.cli.main import app
from punchlib.runs.log_sources import CloudWatchLogs
from tests.support.ministack import MiniStack

GROUP = "/aws/lambda/lambda"
RUN = "20260102T030405Z-00ff00ff"
#: When that run began.
BEGAN = 1767323045.0


def write(logs: Any, stream: str, *lines: tuple[float, str]) -> None:
    logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
    events = [{"timestamp": int((BEGAN + at) * 1000), "message": text} for at, text in lines]
    logs.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=events)


@pytest.fixture(scope="module")
def logs(ministack: MiniStack) -> Any:
    client = ministack.client("logs")
    client.create_log_group(logGroupName=GROUP)
    event = f'{{"v": 1, "time": {BEGAN + 2}, "event": "node.invoked", "job": "{RUN}"}}'
    write(client, "a", (1.0, f"[JOB:{RUN}] Executing"), (2.0, event), (4.0, "[w1 +1s] no luck\x1b"))
    write(client, "b", (3.0, f"[JOB:{RUN}] Executing"), (3.5, "[w2 +1s] fine"))
    write(client, "c", (3.0, "[JOB:another] Executing"), (3.5, "[w1 +1s] another's"))
    return client


def test_only_its_own_and_once(logs: Any) -> None:
    source = CloudWatchLogs(lambda: logs, GROUP, RUN, BEGAN)
    texts = [line.text for line in source.read()]
    assert len(texts) == 5
    assert "[w2 +1s] fine" in texts
    assert not [t for t in texts if "another" in t]
    assert source.read() == []
    write(logs, "d", (5.0, f"[JOB:{RUN}] late"))
    assert [line.text for line in source.read()] == [f"[JOB:{RUN}] late"]


def test_nobody_looks(logs: Any) -> None:
    def never() -> Any:
        raise AssertionError("a client was made")

    assert CloudWatchLogs(never, GROUP, RUN, BEGAN, wanted=lambda: False).read() == []


def test_a_refusal_is_said_once(logs: Any) -> None:
    source = CloudWatchLogs(lambda: logs, "/no/such/group", RUN, BEGAN)
    [line] = source.read()
    assert "the logs of the workers cannot be read" in line.text
    assert source.read() == []


def test_the_command(
    logs: Any, ministack: MiniStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name, value in ministack.env.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["logs", "--aws", RUN])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].endswith(f"s  [JOB:{RUN}] Executing")
    assert "   5.000 s  [w1 +1s] no luck\\x1b" in lines
    assert len(lines) >= 5
    for name, why in (
        ("20260102T030405Z-other", "has no line of the run"),
        ("x", "is no run's id"),
    ):
        done = CliRunner().invoke(app, ["logs", "--aws", name])
        assert done.exit_code != 0
        assert why in str(done.exception)
