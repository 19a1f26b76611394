"""What a run's nodes do right now, from their logs while they run (docs/events.md).

A node's events come with its result, which is late for whoever waits. Its log has them as they
happen: files at home, CloudWatch on AWS. An EC2 node on AWS has its log at home; it is seen at
its end only.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from punchlib.errors import escape
from punchlib.runs.log_sources import Logs
from punchlib.runs.timeline import Moment, moments

#: Seconds for which a rate counts after its last word: one comes each second while bytes move.
RECENT = 3.0


@dataclass
class StreamState:
    """One end of a stream."""

    route: str = ""
    step: str = "connecting"
    bytes: float = 0.0
    at: float = 0.0
    rate: float = 0.0

    def moved(self, at: float, total: float) -> None:
        """So many bytes have moved by then; `at` in seconds since the run began."""
        if total > self.bytes:
            self.rate = (total - self.bytes) / max(at - self.at, 0.001) if self.at else 0.0
            self.at, self.bytes = at, total


@dataclass
class NodeState:
    """What a node does.

    Attributes:
        place: ec2, lambda, or here, of which no log tells while it runs.
        state: starting, running, ok, failed.
        streams: by key and direction.
    """

    place: str = ""
    state: str = "waiting"
    streams: dict[tuple[str, str], StreamState] = field(default_factory=dict)

    @property
    def moved(self) -> float:
        """Bytes that have gone through its streams."""
        return sum(s.bytes for s in self.streams.values())

    @property
    def routes(self) -> str:
        """The ways its streams take, with how many take each."""
        counts: dict[str, int] = {}
        for stream in self.streams.values():
            if stream.route:
                counts[stream.route] = counts.get(stream.route, 0) + 1
        return " ".join(f"{route}×{n}" if n > 1 else route for route, n in sorted(counts.items()))

    @property
    def waits_for(self) -> str:
        """What it waits for, as far as its streams tell."""
        if self.state == "starting":
            return "its worker" if self.place == "lambda" else "its handler"
        if self.state != "running":
            return ""
        if self.place == "here" and not self.streams:
            return "the job's result"
        steps = [s.step for s in self.streams.values() if s.step != "done"]
        if "moving" in steps:
            return ""
        for step in ("connecting", "registered", "meeting", "connected"):
            if found := steps.count(step):
                return _WAITING[step].format(f"{found} peers" if found > 1 else "a peer")
        return "its own stages"

    def rate(self, now: float) -> float:
        """Bytes a second that its streams move; `now` in seconds since the run began."""
        streams = [s for s in self.streams.values() if s.step == "moving"]
        return sum(s.rate for s in streams if now - s.at < RECENT)


_WAITING = {
    "connecting": "its address, for {}",
    "registered": "{} to register",
    "meeting": "a connection to {}",
    "connected": "the first byte",
}
_STEPS = {
    "connection.started": "connecting",
    "connection.registered": "registered",
    "connection.attempt": "meeting",
    "connection.connected": "connected",
    "stream.first_byte": "moving",
    "stream.progress": "moving",
    "stream.last_byte": "done",
    "stream.acknowledged": "done",
    "connection.failed": "done",
}
_STATES = {
    "run.node_started": "starting",
    "node.invoked": "running",
    "run.node_ended": "ok",
    "run.node_failed": "failed",
}


class Board:
    """What all nodes of a run do, event by event.

    Args:
        places: where each runs, ec2 or lambda.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self.nodes = {node: NodeState(place) for node, place in places.items()}

    def take(self, moment: Moment) -> None:
        """Takes note of an event; those of an unknown node are nobody's."""
        node = self.nodes.get(moment.node)
        if node is None:
            return
        if moment.event == "run.node_started":
            node.streams = {}
        if state := _STATES.get(moment.event):
            node.state = "running" if state == "starting" and node.place == "here" else state
        if step := _STEPS.get(moment.event):
            key = (moment.text("punch.key"), moment.text("punch.direction"))
            stream = node.streams.setdefault(key, StreamState())
            stream.step = step
            stream.route = moment.text("punch.route") or stream.route
            stream.moved(moment.at, moment.number("punch.bytes"))


class Follower:
    """Reads logs in a thread while the context lasts, and tells what they say.

    Args:
        logs: where they are.
        began: when the run began, in seconds since 1970.
        take: is told each event.
        say: is told each other line, safe to print; None: they are not wanted.
        also: is done at each look.
    """

    def __init__(
        self,
        logs: Logs,
        began: float,
        take: Callable[[Moment], None],
        say: Callable[[str], None] | None = None,
        also: Callable[[], None] = lambda: None,
    ) -> None:
        self._logs = logs
        self._began = began
        self._take = take
        self._say = say
        self._also = also
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._over.wait(self._logs.pause):
            self._look()
        self._look()

    def _look(self) -> None:
        self._also()
        for line in self._logs.read():
            event = event_of(line.text)
            if event:
                for moment in moments([event], self._began, 0.0):
                    self._take(moment)
            elif self._say:
                self._say(escape(line.text))


def event_of(line: str) -> dict[str, Any] | None:
    """The event that a line of a node's log is; None for one of text."""
    if not line.startswith('{"v"'):
        return None
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and "event" in event else None


def left(elapsed: float, before: float | None) -> str:
    """How long a run may take, where the last one of the same job took `before` seconds."""
    if not before:
        return ""
    rest = before - elapsed
    return f"about {rest:.0f} s left, as the last time" if rest > 0 else "longer than the last time"
