"""Phases: without gaps and overlaps where marks are missing."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from punchlib.runs import phases
from punchlib.runs.story import End, NodeStory, tell
from tests.support.recorded_runs import load

MARKS = ["asked", "invoked", "fetched", "began", "stopped", "ended", "back"]
STEPS = ["started", "registered", "peer_seen", "connected", "first_byte", "last_byte", "failed"]
times = st.floats(0, 10)


def test_those_of_a_worker() -> None:
    story = tell(*load("sort"))
    worker = story.nodes["worker1"]
    assert [p.name for p in phases.of_node(worker)] == ["cold", "script", "run", "finish"]
    sender = next(e for e in worker.ends if e.sending)
    names = [p.name for p in phases.of_end(sender, worker.over)]
    assert names == ["prepare", "wait", "punch", "idle", "move", "ack"]


def test_a_missing_mark_lengthens_the_phase_before() -> None:
    node = NodeStory("a", times={"asked": 1, "began": 3, "back": 5}, told=1)
    found = [(p.name, p.begin, p.end) for p in phases.of_node(node)]
    assert found == [("start", 1, 3), ("run", 3, 5)]


def test_a_node_that_told_nothing() -> None:
    node = NodeStory("a", times={"asked": 1, "back": 5})
    assert [p.label for p in phases.of_node(node)] == ["told nothing"]


def test_what_fails_ends_there() -> None:
    end = End("a", "k", True, times={"started": 1, "registered": 2, "failed": 4})
    assert [(p.name, p.end) for p in phases.of_end(end, 9)] == [("prepare", 2), ("wait", 4)]


@given(st.dictionaries(st.sampled_from(MARKS + STEPS), times), times, st.booleans())
def test_they_follow_each_other(marks: dict[str, float], over: float, cold: bool) -> None:
    node = NodeStory("a", times=marks, told=1, cold=cold)
    for found in (phases.of_node(node), phases.of_end(End("a", "k", True, times=marks), over)):
        assert all(p.begin < p.end for p in found)
        assert all(a.end <= b.begin for a, b in itertools.pairwise(found))
        assert all(p.label for p in found)
