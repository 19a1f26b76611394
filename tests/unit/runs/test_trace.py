"""The trace: complete events with names, as the format wants them."""

from __future__ import annotations

import json

import pytest

from punchlib.runs.critical_path import path_of
from punchlib.runs.story import tell
from punchlib.runs.trace import trace
from tests.support.recorded_runs import RUNS, load


@pytest.mark.parametrize("name", RUNS)
def test_every_span_is_whole_and_has_a_named_thread(name: str) -> None:
    told, run = load(name)
    story = tell(told, run)
    events = json.loads(json.dumps(trace(story, path_of(story), "the run")))["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    threads = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert {e["ph"] for e in events} == {"X", "M"}
    assert all(isinstance(e["ts"], int) and e["ts"] >= 0 and e["dur"] >= 0 for e in spans)
    assert {(e["pid"], e["tid"]) for e in spans} <= threads
    assert len(processes) == 1 + len(story.nodes)
    assert len(threads) == 2 + len(story.nodes) + sum(len(n.ends) for n in story.nodes.values())
    path = [e for e in spans if (e["pid"], e["tid"]) == (1, 2)]
    assert abs(sum(e["dur"] for e in path) - story.elapsed * 1e6) < len(path)


def test_it_names_nodes_and_peers() -> None:
    story = tell(*load("sort"))
    events = trace(story, [], "the run")["traceEvents"]
    names = [e["args"]["name"] for e in events if e["ph"] == "M"]
    assert "splitter (ec2)" in names
    assert names.count("from splitter") == 2
