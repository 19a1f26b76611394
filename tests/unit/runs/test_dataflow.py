"""The dataflow's picture: arrows run to the right, boxes do not touch, circles are drawn too."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.runs.dataflow import Graph, draw, natural
from punchlib.runs.story import End, NodeStory, Story, Stream, tell
from tests.support.recorded_runs import load


def story_of(pairs: list[tuple[str, str]]) -> Story:
    story = Story()
    for number, (source, target) in enumerate(pairs):
        key = f"k{number}"
        ends = End(source, key, True, bytes=5), End(target, key, False, bytes=5)
        story.streams[key] = Stream(key, *ends)
        for end in ends:
            story.nodes.setdefault(end.node, NodeStory(end.node)).ends.append(end)
    return story


def assert_apart(graph: Graph) -> None:
    width, height = graph.box
    for a, b in itertools.combinations(graph.boxes, 2):
        assert abs(a.x - b.x) >= width or abs(a.y - b.y) >= height
    assert all(width / 2 <= b.x <= graph.width - width / 2 for b in graph.boxes)
    assert all(height / 2 <= b.y <= graph.height - height / 2 for b in graph.boxes)


def test_a_sort() -> None:
    graph = draw(tell(*load("sort")))
    layers = {b.id: b.layer for b in graph.boxes if not b.is_object}
    assert layers == {"splitter": 1, "worker1": 2, "worker2": 2, "merger": 3}
    assert sorted(b.layer for b in graph.boxes if b.is_object) == [0, 4]
    assert all(a.bytes for a in graph.arrows)
    assert graph.roomy
    assert_apart(graph)


def test_a_wide_job() -> None:
    graph = draw(tell(*load("wide")))
    assert len([b for b in graph.boxes if not b.is_object]) == 83
    assert sum(len(a.streams) for a in graph.arrows) == 187
    assert all(a.source.layer < a.target.layer for a in graph.arrows)
    assert not graph.roomy
    assert_apart(graph)


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh"))))
def test_any_job_is_drawn(pairs: list[tuple[str, str]]) -> None:
    assert_apart(draw(story_of(pairs)))


@pytest.mark.parametrize("length", [2, 600])
def test_circles_and_long_chains(length: int) -> None:
    names = [f"n{n}" for n in range(length)]
    circle = [*itertools.pairwise(names), (names[-1], names[0])]
    assert len(draw(story_of(circle)).arrows) == length
    chain = draw(story_of(circle[:-1]))
    assert all(a.source.x < a.target.x for a in chain.arrows)


def test_no_run_is_too_small() -> None:
    assert draw(Story()).boxes == []


def test_numbers_are_ordered_as_numbers() -> None:
    names = ["worker10", "worker2", "worker", "2", "²"]
    assert sorted(names, key=natural) == ["2", "worker", "worker2", "worker10", "²"]
