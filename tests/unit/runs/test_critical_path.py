"""The critical path: what real runs waited for, and that it covers whatever events there are."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.runs.critical_path import Kind, Segment, critical_path, sentence
from punchlib.runs.timeline import Moment
from tests.support.drawn_moments import EVENTS, moments
from tests.support.recorded_runs import RUNS, load


def assert_covers(path: list[Segment], elapsed: float) -> None:
    """From 0 to the end, in order, without gap or overlap."""
    edges = [0.0, *(s.end for s in path)]
    assert [s.begin for s in path] == edges[:-1]
    assert edges[-1] == elapsed
    assert all(s.begin < s.end for s in path)


@given(st.lists(moments, max_size=60))
def test_it_covers_the_run_whatever_was_told(drawn: list[Moment]) -> None:
    path = critical_path(drawn)
    elapsed = path[-1].end if path else 0.0
    known = [m.at for m in drawn if 0 < m.at < float("inf")]
    if any(m.event == "run.ended" for m in drawn):
        assert elapsed == 0 or elapsed in known
    else:
        assert elapsed == max(known, default=0.0)
    assert_covers(path, elapsed)
    line = sentence(path, elapsed)
    assert bool(line) == bool(path)
    assert line.isprintable()


@pytest.mark.parametrize("name", RUNS)
@given(data=st.data())
def test_it_covers_a_real_run_of_which_events_are_lost(name: str, data: st.DataObject) -> None:
    told, run = load(name)
    silent = data.draw(st.sets(st.sampled_from(run_nodes(run))))
    kept = [m for m in told if m.node not in silent]
    size = len(kept)
    first, last = sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size))))
    lost = data.draw(st.sets(st.sampled_from(EVENTS), max_size=4))
    path = critical_path([m for m in kept[first:last] if m.event not in lost], run)
    assert_covers(path, path[-1].end)
    assert path[-1].end >= run["elapsed_s"]
    assert sentence(path, path[-1].end)


def run_nodes(run: dict[str, Any]) -> list[str]:
    return [node["id"] for node in run["nodes"]]


def test_a_sort_waited_for_a_worker_that_for_the_splitter_and_that_for_another_worker() -> None:
    path = critical_path(*load("sort"))
    chain = [node for node, _ in itertools.groupby(s.node for s in path)]
    assert chain == ["", "worker1", "splitter", "worker2", "merger", ""]
    kinds = [s.kind for s in path if s.node]
    assert kinds[0] is Kind.COLD
    assert kinds[3:7] == [Kind.CONNECT, Kind.READ, Kind.RUN, Kind.TRANSFER]


def test_a_wide_run_waited_for_one_node() -> None:
    told, run = load("wide")
    line = sentence(critical_path(told, run), run["elapsed_s"])
    assert line == (
        "30 % of 29.2 s: waiting for word16's cold start; 20 %: word16's script getting under way"
    )


def test_a_node_that_told_nothing_is_named() -> None:
    told = [
        Moment(1.0, "a", "run.node_started", {"punch.place": "lambda"}),
        Moment(4.0, "a", "run.node_failed", {"punch.text": "the worker failed"}),
    ]
    path = critical_path(told)
    assert [(s.node, s.kind) for s in path] == [("", Kind.PREPARE), ("a", Kind.UNKNOWN)]
    assert sentence(path, 4.0) == "75 % of 4.0 s: a, which told nothing of itself"


def test_a_late_peer_is_what_a_connection_waited_for() -> None:
    key = {"punch.key": "k", "punch.direction": "send"}
    told = [
        Moment(0.0, "a", "run.node_started"),
        Moment(0.0, "b", "run.node_started"),
        Moment(0.1, "a", "node.invoked", {"faas.coldstart": False}),
        Moment(0.2, "a", "connection.started", key),
        Moment(3.0, "b", "node.invoked", {"faas.coldstart": True}),
        Moment(3.2, "b", "connection.started", {**key, "punch.direction": "recv"}),
        Moment(3.5, "a", "connection.connected", key),
        Moment(4.0, "a", "stream.last_byte", key),
        Moment(4.1, "b", "stream.last_byte", {**key, "punch.direction": "recv"}),
        Moment(4.1, "b", "node.ended"),
    ]
    path = critical_path(told)
    assert sentence(path, 4.1) == "73 % of 4.1 s: waiting for b's cold start"
    assert [s.node for s in path] == ["b", "b", "a", "a", "b"]


def test_a_node_that_failed_may_have_waited_for_a_peer_that_never_came() -> None:
    def key(name: str) -> dict[str, object]:
        return {"punch.key": name, "punch.direction": "recv"}

    told = [
        Moment(0.0, "a", "run.node_started"),
        Moment(0.1, "a", "node.invoked", {"faas.coldstart": False}),
        Moment(0.2, "a", "connection.started", key("k")),
        Moment(0.2, "a", "connection.started", key("l")),
        Moment(0.9, "a", "connection.connected", key("k")),
        Moment(1.0, "a", "stream.last_byte", key("k")),
        Moment(9.9, "a", "node.ended", {"punch.ended": "cancelled"}),
        Moment(10.0, "a", "run.node_ended"),
    ]
    line = sentence(critical_path(told), 10.0)
    assert line == "91 % of 10.0 s: a waiting for a peer that never came"


def test_many_like_waits_are_told_together() -> None:
    path = [Segment(f"n{i}", Kind.RUN, i, i + 1.0, f"n{i}'s own work") for i in range(10)]
    assert sentence(path, 10.0) == "100 % of 10.0 s: the work of 10 nodes, one after the other"


def test_a_name_may_end_in_s() -> None:
    told = [Moment(0, "words", "node.invoked"), Moment(1, "words", "script.started")]
    assert critical_path([*told, Moment(5, "words", "node.ended")])[-1].text == "words' own work"


def test_nothing_is_said_of_nothing() -> None:
    assert critical_path([]) == []
    assert sentence([], 0.0) == ""
