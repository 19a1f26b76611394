"""A run's story: what is gathered from its events, and what run.json adds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.runs.story import tell
from punchlib.runs.timeline import Moment
from tests.support.recorded_runs import load

json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def test_a_real_run() -> None:
    story = tell(*load("sort"))
    assert list(story.nodes) == ["merger", "splitter", "worker1", "worker2"]
    assert [n.place for n in story.nodes.values()] == ["ec2", "ec2", "lambda", "lambda"]
    assert [n.cold for n in story.nodes.values()] == [False, False, True, True]
    assert all(n.well and not n.failed and n.cpu > 0 for n in story.nodes.values())
    assert len(story.streams) == 4
    assert {s.route for s in story.streams.values()} == {"host"}
    assert sum(s.bytes for s in story.streams.values()) == 2 * 30_000_055
    assert [(o.node, o.written) for o in story.objects] == [("splitter", False), ("merger", True)]
    assert story.elapsed == pytest.approx(4.991, abs=0.01)


def test_a_wide_run_has_all_its_streams() -> None:
    story = tell(*load("wide"))
    assert (len(story.nodes), len(story.streams)) == (83, 187)
    assert all(s.send and s.recv and s.bytes for s in story.streams.values())


def test_a_failed_run_says_which_streams_broke() -> None:
    story = tell(*load("broken"))
    (broken,) = [s for s in story.streams.values() if s.error]
    assert broken.send and broken.send.node == "worker1"
    assert [n.id for n in story.nodes.values() if n.failed] == ["merger", "worker1"]


def test_run_json_tells_of_nodes_that_told_nothing() -> None:
    run = {"elapsed_s": 9, "nodes": [{"id": "a", "place": "lambda", "ok": False, "ended_s": 8.5}]}
    story = tell([], run)
    assert story.elapsed == 9
    assert (story.nodes["a"].place, story.nodes["a"].over) == ("lambda", 8.5)
    assert not story.nodes["a"].told


def test_the_connection_that_holds_is_the_last_that_was_made() -> None:
    key = {"punch.key": "k", "punch.direction": "send"}
    told = [
        Moment(1, "a", "connection.connected", {**key, "punch.route": "punched"}),
        Moment(2, "a", "connection.connected", {**key, "punch.route": "s3"}),
    ]
    story = tell(told)
    assert (story.streams["k"].route, story.nodes["a"].ends[0].times["connected"]) == ("s3", 2)


@given(
    st.dictionaries(
        st.sampled_from(["nodes", "elapsed_s", "error", "cost"]),
        json_values
        | st.lists(
            st.dictionaries(
                st.sampled_from(["id", "place", "started_s", "cold", "ok"]), json_values
            )
        ),
    )
)
def test_no_run_json_is_too_odd(run: dict[str, Any]) -> None:
    tell([], run)
