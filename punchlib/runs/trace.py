"""A run in Chrome's trace event format, which Perfetto and chrome://tracing open.

A process for each node, with a thread for its script and one for each of its connections; a
process of the run's own for what it waited for.
(The format: "Trace Event Format", Google, 2016. Times are in µs.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from punchlib.errors import escape
from punchlib.runs import phases
from punchlib.runs.critical_path import Segment
from punchlib.runs.phases import Phase
from punchlib.runs.story import End, Story

_RUN = 1


def trace(story: Story, path: Sequence[Segment], run: str) -> dict[str, Any]:
    """The trace, as JSON.

    Args:
        story: the run.
        path: its critical path.
        run: its name.
    """
    events = [_name("process_name", _RUN, 0, f"run {run}"), _name("thread_name", _RUN, 1, "steps")]
    events.append(_name("thread_name", _RUN, 2, "critical path"))
    before = 0.0
    for at, text in story.steps:
        events.append(_span(_RUN, 1, text, "step", before, at))
        before = at
    for segment in path:
        events.append(_span(_RUN, 2, segment.text, segment.kind, segment.begin, segment.end))
    for pid, node in enumerate(story.nodes.values(), _RUN + 1):
        place = f" ({node.place})" if node.place else ""
        events.append(_name("process_name", pid, 0, f"{node.id}{place}"))
        events.append(_name("thread_name", pid, 1, "script"))
        events += [_phase(pid, 1, phase) for phase in phases.of_node(node)]
        for tid, end in enumerate(node.ends, 2):
            events.append(_name("thread_name", pid, tid, _title(story, end)))
            facts = {"key": escape(end.key), "bytes": end.bytes, "route": escape(end.route)}
            if end.error:
                facts["error"] = escape(end.error)
            events += [_phase(pid, tid, p, facts) for p in phases.of_end(end, node.over)]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _title(story: Story, end: End) -> str:
    stream = story.streams[end.key]
    other = stream.recv if end.sending else stream.send
    way = "to" if end.sending else "from"
    return f"{way} {other.node if other and other is not end else 'an unknown node'}"


def _name(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": escape(name)}}


def _phase(pid: int, tid: int, phase: Phase, facts: dict[str, Any] | None = None) -> dict[str, Any]:
    return _span(pid, tid, phase.label, phase.name, phase.begin, phase.end) | (
        {"args": facts} if facts else {}
    )


def _span(pid: int, tid: int, name: str, kind: str, begin: float, end: float) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": escape(name),
        "cat": kind,
        "pid": pid,
        "tid": tid,
        "ts": round(begin * 1e6),
        "dur": round((end - begin) * 1e6),
    }
