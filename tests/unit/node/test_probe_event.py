"""A probe is read as it was written, and one with a fault is refused."""

from __future__ import annotations

import json

import pytest

from punchlib.config import Config
from punchlib.errors import UsageError
from punchlib.node.probe import answer
from punchlib.node.probe_event import Probe


@pytest.mark.parametrize(
    "probe", [Probe("doctor"), Probe("ping", "k", "job", "ab12", 3), Probe("ping", "a key*of#any")]
)
def test_a_probe_survives_the_way(probe: Probe) -> None:
    assert Probe.from_json(json.loads(json.dumps(probe.to_json()))) == probe


def test_other_events_are_no_probes() -> None:
    events: list[object] = [{"ids": ["a"], "folder_ids": ["b"]}, {}, [], None, "probe"]
    for event in events:
        assert Probe.from_json(event) is None


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"probe": "x\n"}, "this release knows no probe"),
        ({"probe": ["doctor"]}, "this release knows no probe"),
        ({"probe": "ping"}, "needs a `key`"),
        ({"probe": "ping", "key": 3}, "needs a `key`"),
        ({"probe": "ping", "key": "a\0"}, "control character"),
        ({"probe": "ping", "key": "k", "job_key": "xyz"}, "`job_key` is not hexadecimal"),
        ({"probe": "ping", "key": "k", "job_key": 3}, "must be strings"),
        ({"probe": "ping", "key": "k", "job_id": "../x"}, "job_id"),
        ({"probe": "ping", "key": "k", "count": 0}, "`count`"),
        ({"probe": "ping", "key": "k", "count": True}, "`count`"),
        ({"probe": "ping", "key": "k", "count": 1001}, "`count`"),
    ],
)
def test_a_probe_with_a_fault_is_refused(event: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Probe.from_json(event)


def test_a_probes_secret_is_not_shown() -> None:
    assert "ab12" not in repr(Probe("ping", "k", "job", "ab12"))


@pytest.mark.parametrize("seconds", [-1, 61, "1", True, None])
def test_how_long_a_worker_is_held(seconds: object) -> None:
    with pytest.raises(UsageError, match="seconds"):
        Probe.from_json({"probe": "warm", "seconds": seconds})
    probe = Probe("warm", seconds=2.5)
    assert Probe.from_json(probe.to_json()) == probe


@pytest.mark.parametrize("commands", [None, "sort", [1], ["a\nb"], ["x"] * 1001])
def test_which_commands_are_asked_for(commands: object) -> None:
    with pytest.raises(UsageError, match="command"):
        Probe.from_json({"probe": "commands", "commands": commands})
    probe = Probe("commands", commands=("sort", "no-such"))
    assert Probe.from_json(probe.to_json()) == probe
    assert answer(probe, Config.from_env())["missing"] == ["no-such"]
