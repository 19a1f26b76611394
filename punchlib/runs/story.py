"""What a run's events say of its nodes and its streams, gathered by node and by stream.

Any of it may be missing: a node of an older release tells nothing, one that was killed tells half,
and a full log drops the rest. So every time is one that is there or is not, and nobody who reads a
story may count on an order. What `run.json` knows as well (punchlib.jobs.report) fills gaps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from punchlib.runs.timeline import Moment

#: Event -> what it is called in `NodeStory.times`.
_NODE_TIMES = {
    "run.node_started": "asked",
    "node.invoked": "invoked",
    "script.fetched": "fetched",
    "script.started": "began",
    "script.ended": "stopped",
    "node.ended": "ended",
    "run.node_ended": "back",
    "run.node_failed": "back",
}


@dataclass
class End:
    """One end of a stream, as its node tells of it.

    Attributes:
        key: the stream's; the two ends have the same.
        sending: it is the end that sends.
        times: seconds since the run began, by the last part of the event's name (`started`,
            `registered`, `peer_seen`, `connected`, `first_byte`, `last_byte`, `acknowledged`,
            `failed`, …).
        bytes: payload that has moved, as far as is known.
        setup: seconds from when both ends were registered; 0.0 where nothing says so.
        attempts: how many there were.
    """

    node: str
    key: str
    sending: bool
    times: dict[str, float] = field(default_factory=dict)
    bytes: int = 0
    route: str = ""
    technique: str = ""
    setup: float = 0.0
    attempts: int = 0
    error: str = ""

    @property
    def done(self) -> float | None:
        """When its last byte had moved, or it failed."""
        return self.times.get("last_byte", self.times.get("failed"))


@dataclass
class Stream:
    """A stream; an end of which nothing was told is None."""

    key: str
    send: End | None = None
    recv: End | None = None

    @property
    def ends(self) -> list[End]:
        return [end for end in (self.send, self.recv) if end]

    @property
    def bytes(self) -> int:
        """What has arrived, as far as is known."""
        return self.recv.bytes if self.recv and self.recv.bytes else max(e.bytes for e in self.ends)

    @property
    def route(self) -> str:
        return next((e.route for e in self.ends if e.route), "")

    @property
    def error(self) -> str:
        return next((e.error for e in self.ends if e.error), "")


@dataclass
class Object:
    """An object of the bucket that a node has read, or written."""

    node: str
    key: str
    bytes: int
    at: float
    written: bool


@dataclass
class NodeStory:
    """A node.

    Attributes:
        place: ec2 or lambda; "" where nothing says so.
        times: seconds since the run began: `asked` (the runner starts it), `invoked`, `fetched`
            (its script), `began` and `stopped` (bash), `ended`, `back` (the runner has its end).
        cold: on a fresh worker; None where nothing says so.
        cpu: seconds of processor time of its script; 0.0 where nothing says so.
        memory: bytes, of its largest process; 0 where nothing says so.
        how: how it ended (punchlib.node.protocol.Ended); "" where nothing says so.
        told: events of its own that are there.
        dropped: events that were too many.
        outcome: what run.json says of it.
    """

    id: str
    place: str = ""
    times: dict[str, float] = field(default_factory=dict)
    cold: bool | None = None
    cpu: float = 0.0
    memory: int = 0
    how: str = ""
    told: int = 0
    dropped: int = 0
    latest: float = 0.0
    ends: list[End] = field(default_factory=list)
    outcome: Mapping[str, Any] = field(default_factory=dict)

    @property
    def over(self) -> float:
        """When it had ended, as far as is known: seconds since the run began."""
        return max(self.times.get("back", 0.0), self.times.get("ended", 0.0), self.latest)

    @property
    def failed(self) -> bool:
        return self.outcome.get("ok") is False and not self.outcome.get("stopped")

    @property
    def well(self) -> bool:
        """It ended well, as far as is known."""
        return self.outcome.get("ok") is True or self.how == "ok"


@dataclass
class Story:
    """A run.

    Attributes:
        nodes: by id, in order of their ids.
        streams: by key.
        steps: what the runner has done, and when.
        elapsed: seconds that the run took, or as far as it is known.
    """

    nodes: dict[str, NodeStory] = field(default_factory=dict)
    streams: dict[str, Stream] = field(default_factory=dict)
    objects: list[Object] = field(default_factory=list)
    steps: list[tuple[float, str]] = field(default_factory=list)
    elapsed: float = 0.0


def tell(moments: Iterable[Moment], run: Mapping[str, Any] | None = None) -> Story:
    """Gathers what is known of a run.

    Args:
        moments: the run's events, in any order.
        run: its run.json; what has not the form that we know is left out.
    """
    story = Story()
    ended = None
    for moment in sorted((m for m in moments if math.isfinite(m.at)), key=lambda m: m.at):
        at = max(moment.at, 0.0)
        story.elapsed = max(story.elapsed, at)
        if moment.event == "run.ended":
            ended = at
        elif moment.event in ("run.step", "run.warning"):
            story.steps.append((at, moment.text("punch.text")))
        if moment.node:
            _of_node(story, moment, at)
    if ended is not None:
        story.elapsed = ended
    _add_run(story, run or {})
    story.nodes = dict(sorted(story.nodes.items()))
    return story


def _of_node(story: Story, moment: Moment, at: float) -> None:
    node = story.nodes.setdefault(moment.node, NodeStory(moment.node))
    event = moment.event
    if name := _NODE_TIMES.get(event):
        node.times.setdefault(name, at)
    if event.startswith("run."):
        if place := moment.text("punch.place"):
            node.place = place
        elif event == "run.node_started":
            node.place = moment.text("punch.text").removeprefix("starts on ")
        return
    node.told += 1
    node.latest = max(node.latest, at)
    area, _, step = event.partition(".")
    if event == "node.invoked":
        cold = moment.attributes.get("faas.coldstart")
        node.cold = cold if isinstance(cold, bool) else None
    elif event == "script.ended":
        node.cpu = number(moment.attributes.get("process.cpu.time"))
        node.memory = int(number(moment.attributes.get("process.memory.peak")))
    elif event == "node.ended":
        node.how = moment.text("punch.ended")
    elif event == "events.dropped":
        node.dropped += int(number(moment.attributes.get("punch.count")))
    elif event in ("download.ended", "upload.ended"):
        key, size = moment.text("aws.s3.key"), _bytes(moment)
        story.objects.append(Object(node.id, key, size, at, area == "upload"))
    elif area in ("connection", "stream") and moment.text("punch.key"):
        _of_end(story, node, moment, step, at)


def _of_end(story: Story, node: NodeStory, moment: Moment, step: str, at: float) -> None:
    key, sending = moment.text("punch.key"), moment.text("punch.direction") == "send"
    end = next((e for e in node.ends if (e.key, e.sending) == (key, sending)), None)
    if end is None:
        end = End(node.id, key, sending)
        node.ends.append(end)
        stream = story.streams.setdefault(key, Stream(key))
        if sending:
            stream.send = stream.send or end
        else:
            stream.recv = stream.recv or end
    if step == "connected":  # the last that was made is the one that holds
        end.times[step] = at
        end.route, end.technique = moment.text("punch.route"), moment.text("punch.technique")
        end.setup = number(moment.attributes.get("punch.setup.duration"))
    end.times.setdefault(step, at)
    end.bytes = max(end.bytes, _bytes(moment))
    end.attempts = max(end.attempts, int(number(moment.attributes.get("punch.attempt"))))
    if step == "failed":
        end.error = moment.text("error.message")


def _add_run(story: Story, run: Mapping[str, Any]) -> None:
    elapsed = number(run.get("elapsed_s"))
    if elapsed > 0:
        story.elapsed = max(elapsed, story.elapsed)
    for outcome in dicts(run, "nodes"):
        id_ = outcome.get("id")
        if not isinstance(id_, str):
            continue
        node = story.nodes.setdefault(id_, NodeStory(id_))
        node.outcome = outcome
        node.place = node.place or str(outcome.get("place") or "")
        node.how = str(outcome.get("how") or node.how)
        if node.cold is None and isinstance(outcome.get("cold"), bool):
            node.cold = outcome["cold"]
        for field_, name in (("started_s", "asked"), ("ended_s", "back")):
            if isinstance(outcome.get(field_), int | float):
                node.times.setdefault(name, max(number(outcome[field_]), 0.0))


def dicts(data: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The objects of a list in JSON; [] where there is none."""
    value = data.get(name)
    return [v for v in value if isinstance(v, Mapping)] if isinstance(value, list) else []


def _bytes(moment: Moment) -> int:
    return int(number(moment.attributes.get("punch.bytes")))


def number(value: object) -> float:
    """A number that can be reckoned with, at least 0; 0.0 for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if 0 <= value < 1e18 else 0.0
