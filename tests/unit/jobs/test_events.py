"""What happens is told with its time, in order."""

from __future__ import annotations

from punchlib.jobs.events import EventSink, JobEvent


def test_events_are_stamped_and_handed_on() -> None:
    seen: list[JobEvent] = []
    sink = EventSink(seen.append)
    sink.tell("step", "started")
    sink.tell("node-failed", "it exited 3", "worker1")
    assert [(event.kind, event.text, event.node) for event in seen] == [
        ("step", "started", ""),
        ("node-failed", "it exited 3", "worker1"),
    ]
    assert 0 <= seen[0].at <= seen[1].at <= sink.elapsed()
