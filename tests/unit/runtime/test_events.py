"""What a part of a script tells its node: whole lines, no waiting, and nothing that can fail."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.node.event_log import EventLog
from punchlib.runtime import events, state

VALUES = st.one_of(st.text(), st.integers(), st.booleans(), st.floats(-1e9, 1e9))


@given(st.text(max_size=50), st.dictionaries(st.text(), VALUES, max_size=20))
def test_a_line_is_json_of_a_fair_size(name: str, facts: dict[str, events.Value]) -> None:
    line = events.encode(name, 1764141600.25, facts)
    assert len(line) <= events.LONGEST
    assert line.count(b"\n") == 1
    told = json.loads(line)
    assert (told["event"], told["time"]) == (name, 1764141600.25)
    for key, value in told["attributes"].items():
        if isinstance(value, str):
            assert str(facts[key]).startswith(value)
        elif isinstance(value, float):
            assert value == pytest.approx(facts[key], rel=1e-4, abs=1e-4)
        else:
            assert value == facts[key]


def test_who_is_not_heard_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "_kept", None)
    monkeypatch.setenv("PUNCH_STATE_DIR", str(tmp_path))
    events.tell("nobody.listens")
    os.mkfifo(tmp_path / events.FIFO)
    events.tell("nobody.reads")
    reader = os.open(tmp_path / events.FIFO, os.O_RDWR)
    began = time.monotonic()
    for number in range(2000):  # far more than a pipe holds
        events.tell("nobody.takes", {"text": "x" * 400, "number": number})
    assert time.monotonic() - began < 10
    os.close(reader)


def test_the_node_hears_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(state, "_kept", None)
    monkeypatch.setenv("PUNCH_STATE_DIR", str(tmp_path))
    log = EventLog("J")
    with log.listening("n", tmp_path):
        events.tell("one", {"punch.bytes": 3})
        fd = os.open(tmp_path / events.FIFO, os.O_WRONLY)
        for line in (b"no json\n", b"[]\n", b'{"v": 1}\n', b"x" * 50_000 + b"\n", b"\n\0\n\n"):
            os.write(fd, line)
        os.write(fd, b'{"v": 1, "time": 1, "event": "e", "attributes": {"a": []}}\n')
        os.close(fd)
        events.tell("stream.progress", {"punch.bytes": 4})
    log.tell("n", "two")
    assert [(e["event"], e["node"]) for e in log.kept] == [("one", "n"), ("two", "n")]
    logged = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [(e["event"], e["job"]) for e in logged] == [
        ("one", "J"),
        ("stream.progress", "J"),
        ("two", "J"),
    ]


def test_a_flood_is_bounded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = EventLog()
    with log.listening("n", tmp_path), open(tmp_path / events.FIFO, "wb", buffering=0) as fifo:
        for _ in range(5000):
            fifo.write(events.encode("flood", 1.0, {"text": "x" * 490}))
    *floods, dropped = log.kept
    assert dropped["event"] == "events.dropped"
    assert len(floods) + dropped["attributes"]["punch.count"] == 5000
    assert sum(len(json.dumps(e)) for e in floods) < 300_000
    assert len(capfd.readouterr().err) < 2 << 20
