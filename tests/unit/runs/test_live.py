"""What nodes do right now, from their logs as they grow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from punchlib.runs import live
from punchlib.runs.live import Board, Follower
from punchlib.runs.log_sources import LogFiles
from punchlib.runs.timeline import Moment

END: dict[str, object] = {"punch.key": "k", "punch.direction": "send"}


def took(*events: tuple[float, str, dict[str, object]]) -> live.NodeState:
    board = Board({"n": "lambda"})
    for at, event, attributes in events:
        board.take(Moment(at, "n", event, attributes))
    board.take(Moment(99.0, "nobody", "node.invoked"))
    return board.nodes["n"]


STEPS: list[tuple[float, str, dict[str, object]]] = [
    (0.0, "run.node_started", {}),
    (1.0, "node.invoked", {}),
    (2.0, "connection.started", END),
    (3.0, "connection.registered", END),
    (4.0, "connection.attempt", END),
    (5.0, "connection.connected", END | {"punch.route": "punched"}),
    (6.0, "stream.first_byte", END | {"punch.bytes": 100}),
    (7.0, "stream.progress", END | {"punch.bytes": 5100}),
    (8.0, "stream.last_byte", END | {"punch.bytes": 6000}),
    (9.0, "run.node_ended", {}),
]


@pytest.mark.parametrize(
    ("count", "state", "waits_for"),
    [
        (0, "waiting", ""),
        (1, "starting", "its worker"),
        (2, "running", "its own stages"),
        (3, "running", "its address, for a peer"),
        (4, "running", "a peer to register"),
        (5, "running", "a connection to a peer"),
        (6, "running", "the first byte"),
        (7, "running", ""),
        (9, "running", "its own stages"),
        (10, "ok", ""),
    ],
)
def test_what_it_waits_for(count: int, state: str, waits_for: str) -> None:
    node = took(*STEPS[:count])
    assert (node.state, node.waits_for) == (state, waits_for)


def test_the_result_is_waited_for_here() -> None:
    board = Board({"result": "here"})
    board.take(Moment(0.0, "result", "run.node_started", {}))
    node = board.nodes["result"]
    assert (node.state, node.waits_for) == ("running", "the job's result")
    board.take(Moment(0.1, "result", "connection.started", {"punch.key": "k"}))
    assert node.waits_for == "its address, for a peer"
    board.take(Moment(0.2, "result", "stream.progress", {"punch.key": "k", "punch.bytes": 5}))
    assert (node.waits_for, node.moved) == ("", 5)


def test_how_much_and_how_fast() -> None:
    node = took(*STEPS[:8])
    assert (node.moved, node.rate(7.5), node.routes) == (5100, 5000, "punched")
    assert node.rate(60) == 0, "nothing has moved for long"
    assert took(*STEPS).rate(8) == 0, "it is over"
    # Run again, it begins anew.
    assert took(*STEPS, STEPS[0]).moved == 0


def test_logs_are_read_as_they_grow(tmp_path: Path) -> None:
    (tmp_path / "lambda").mkdir()
    logs = LogFiles(tmp_path, ("a.log", "lambda/*"))
    assert logs.read() == []
    (tmp_path / "a.log").write_text("one\ntw")
    (tmp_path / "lambda/x").write_text("three\n")
    assert [line.text for line in logs.read()] == ["one", "three"]
    with (tmp_path / "a.log").open("a") as file:
        file.write("o\n")
    (tmp_path / "lambda/x").unlink()
    assert [line.text for line in logs.read()] == ["two"]
    assert logs.read() == []


def test_what_a_follower_tells(tmp_path: Path) -> None:
    event = {"v": 1, "time": 1001.5, "event": "e", "node": "n", "attributes": {}}
    text = f'[n] a line \x1b[31m\n{json.dumps(event)}\n{{"v": 1, broken\n'
    (tmp_path / "a.log").write_text(text)
    seen: list[Moment] = []
    said: list[str] = []
    with Follower(LogFiles(tmp_path, ("*.log",)), 1000.0, seen.append, said.append):
        pass
    assert seen == [Moment(1.5, "n", "e")]
    assert said == ["[n] a line \\x1b[31m", '{"v": 1, broken']


def test_how_long_it_may_take() -> None:
    assert live.left(2.0, None) == ""
    assert live.left(2.0, 10.0) == "about 8 s left, as the last time"
    assert live.left(12.0, 10.0) == "longer than the last time"
