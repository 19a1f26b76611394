"""Where a run's time went: the chain of waits that leads from its end back to its start.

A node that has ended waited for its last input; so the one that sent it is looked at next, at the
moment when it sent. A node without an input (or the first in the chain) waited for its connections,
each of which waited for the later of its two ends, and before that for its own start. Whatever an
event is missing for belongs to the stage around it.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from punchlib.errors import escape
from punchlib.runs.story import End, NodeStory, Story, tell
from punchlib.runs.timeline import Moment

#: Share of the time from which on one wait is a run's story; below it, its sort is told.
_TELLING = 0.25
#: Share up to which the largest wait does not tell enough alone.
_HALF = 0.5


class Kind(enum.StrEnum):
    """What sort of wait it was."""

    PREPARE = "prepare"
    #: A node starts; on a fresh worker, cold.
    START = "start"
    COLD = "cold start"
    #: Its script is fetched and begins.
    SCRIPT = "script"
    CONNECT = "connect"
    #: It reads an object of the bucket.
    READ = "read"
    #: It works, as far as can be told.
    RUN = "run"
    #: It waits for a stream that did not end.
    WAIT = "wait"
    #: The last bytes are on their way from one node to another.
    TRANSFER = "transfer"
    #: A node ends and answers; the run completes and fetches its outputs.
    FINISH = "finish"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Segment:
    """A part of a run's time, and what was waited for in it.

    Attributes:
        node: whose it is; "" for the run's own.
        begin, end: seconds since the run began.
        text: what was waited for, for people.
    """

    node: str
    kind: Kind
    begin: float
    end: float
    text: str

    @property
    def seconds(self) -> float:
        return self.end - self.begin


def critical_path(moments: Iterable[Moment], run: Mapping[str, Any] | None = None) -> list[Segment]:
    """What the run waited for, from its start to its end, without gap or overlap.

    Args:
        moments: the run's events, in any order; any may be missing.
        run: its run.json, where there is one.
    """
    return path_of(tell(moments, run))


def path_of(story: Story) -> list[Segment]:
    """The same, of events that are gathered already."""
    return _Walk(story).back()


class _Walk:
    """Walks back from a run's end; `self._at` is how far it has come."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._at = story.elapsed
        self._found: list[Segment] = []
        self._seen: set[str] = set()

    def back(self) -> list[Segment]:
        story = self._story
        node: NodeStory | None
        node = max(story.nodes.values(), key=lambda n: (n.over, n.id), default=None)
        if node is not None:
            if node.over > 0:
                self._finish(node)
            while node is not None:
                node = self._before(node)
        self._prepare()
        return self._found[::-1]

    def _to(self, begin: float | None, node: str, kind: Kind, text: str) -> None:
        """What lies between `begin` and here was this; nothing, where `begin` is not before."""
        if begin is None:
            return
        begin = max(begin, 0.0)
        if begin < self._at:
            self._found.append(Segment(node, kind, begin, self._at, text))
            self._at = begin

    def _finish(self, last: NodeStory) -> None:
        for at, text in reversed(self._story.steps):
            if at > last.over:
                self._to(at, "", Kind.FINISH, "the end of the run")
                self._to(max(last.over, self._step_before(at)), "", Kind.FINISH, text)
        self._to(last.over, "", Kind.FINISH, "the end of the run")
        name = _name(last.id)
        self._to(last.times.get("stopped"), last.id, Kind.FINISH, f"{name} ending and answering")

    def _step_before(self, at: float) -> float:
        return max((a for a, _ in self._story.steps if a < at), default=0.0)

    def _before(self, node: NodeStory) -> NodeStory | None:
        """Goes from here, in a node, to where what it waited for began; on which node that is."""
        arrived = [
            e
            for e in node.ends
            if not e.sending and e.key not in self._seen and self._is_past(e.done)
        ]
        if arrived:
            end = max(arrived, key=lambda e: e.done or 0.0)
            return self._to_sender(node, end)
        self._to_connection(node)
        return None

    def _is_past(self, at: float | None) -> bool:
        return at is not None and at <= self._at

    def _to_sender(self, node: NodeStory, end: End) -> NodeStory:
        self._seen.add(end.key)
        self._worked(node, end.done, f"{_whose(node.id)} own work after its last input")
        sent = self._story.streams[end.key].send
        if sent is None or sent.node == node.id or sent.done is None:
            return node  # who sent it says nothing: its other inputs, its own start
        text = f"the last bytes from {_name(sent.node)} to {_name(node.id)}"
        self._to(sent.done, node.id, Kind.TRANSFER, text)
        return self._story.nodes[sent.node]

    def _to_connection(self, node: NodeStory) -> None:
        """A node without another input: it worked since its connections were there.

        The last of them waited for the later of its two ends, and that for its own start.
        """
        made = [e for e in node.ends if self._is_past(e.times.get("connected"))]
        if not made:
            self._start(node)
            return
        end = max(made, key=lambda e: e.times["connected"])
        self._work(node, end.times["connected"])
        ends = self._story.streams[end.key].ends
        late = max((e for e in ends), key=lambda e: e.times.get("started", 0.0))
        names = " and ".join(dict.fromkeys(_name(e.node) for e in ends))
        self._to(late.times.get("started"), node.id, Kind.CONNECT, f"connecting {names}")
        self._start(self._story.nodes[late.node])

    def _work(self, node: NodeStory, since: float) -> None:
        """What a node did from when it could until here; a part of it was to read its input."""
        read = [o for o in self._story.objects if o.node == node.id and not o.written]
        done = max((o.at for o in read if since < o.at < self._at), default=None)
        work = f"{_whose(node.id)} own work"
        self._worked(node, since if done is None else done, work)
        if done is not None:
            text = f"{_name(node.id)} reading from the bucket and passing on"
            self._to(since, node.id, Kind.READ, text)

    def _worked(self, node: NodeStory, since: float | None, text: str) -> None:
        """It worked since then; one that did not end well may have waited for a stream instead."""
        still = [e for e in node.ends if e.done is None and e.times.get("started", 0.0) < self._at]
        if node.well or not still:
            self._to(since, node.id, Kind.RUN, text)
            return
        end = min(still, key=lambda e: (e.sending, "connected" in e.times))
        ends = self._story.streams[end.key].ends
        peer = next((_name(e.node) for e in ends if e.node != node.id), "a peer")
        if "connected" in end.times:
            what = f"sending to {peer}" if end.sending else f"receiving from {peer}"
            text = f"{_name(node.id)}, still {what}"
        else:
            never = "that never came" if peer == "a peer" else "to connect"
            text = f"{_name(node.id)} waiting for {peer} {never}"
        self._to(since, node.id, Kind.WAIT, text)

    def _start(self, node: NodeStory) -> None:
        times, name = node.times, _name(node.id)
        if not node.told:
            text = f"{name}, which told nothing of itself"
            self._to(times.get("asked"), node.id, Kind.UNKNOWN, text)
            return
        began = times.get("began")
        streams = [e.times["started"] for e in node.ends if "started" in e.times]
        if began is not None and not streams:
            self._work(node, began)
        self._to(began, node.id, Kind.SCRIPT, f"{_whose(node.id)} script getting under way")
        self._to(times.get("invoked"), node.id, Kind.SCRIPT, f"{name} fetching its script")
        kind = Kind.COLD if node.cold else Kind.START
        text = (
            f"waiting for {_whose(node.id)} cold start"
            if node.cold
            else f"waiting for {name} to start"
        )
        self._to(times.get("asked"), node.id, kind, text)

    def _prepare(self) -> None:
        """The rest is the run's own: what the runner did before it started the nodes."""
        for at, text in reversed(self._story.steps):
            if at <= self._at:
                what = "starting the nodes" if self._story.nodes else "the run's preparations"
                self._to(at, "", Kind.PREPARE, what)
                self._to(self._step_before(at), "", Kind.PREPARE, text)
        self._to(0.0, "", Kind.PREPARE, "the run's preparations")


def _name(node: str) -> str:
    return escape(node, 60).replace("\n", " ")


def _whose(node: str) -> str:
    name = _name(node)
    return f"{name}'" if name.endswith("s") else f"{name}'s"


@dataclass(frozen=True)
class Share:
    """Waits of one sort together.

    Attributes:
        seconds: of all.
        text: what was waited for.
    """

    seconds: float
    text: str


def shares(path: Sequence[Segment]) -> list[Share]:
    """What was waited for longest: each node's wait of a kind, the largest first."""
    groups: dict[tuple[str, Kind], list[Segment]] = defaultdict(list)
    for segment in path:
        groups[segment.node, segment.kind].append(segment)
    return sorted((_share(g) for g in groups.values()), key=lambda s: -s.seconds)


def _share(group: Sequence[Segment]) -> Share:
    kind, node = group[0].kind, group[0].node
    if not node and kind is Kind.PREPARE:
        text = "the run's preparations, before its nodes start"
    elif not node and kind is Kind.FINISH:
        text = "completing and fetching the outputs"
    else:
        text = max(group, key=lambda s: s.seconds).text
    return Share(sum(s.seconds for s in group), text)


#: What a kind is called where many nodes share it.
_TOGETHER = {
    Kind.START: "waiting for {} to start",
    Kind.COLD: "the cold starts of {}",
    Kind.SCRIPT: "scripts getting under way on {}",
    Kind.CONNECT: "connections of {}",
    Kind.READ: "{} reading from the bucket",
    Kind.RUN: "the work of {}, one after the other",
    Kind.WAIT: "{} waiting for streams that did not end",
    Kind.TRANSFER: "the last bytes on their way to {}",
    Kind.FINISH: "{} ending and answering",
    Kind.UNKNOWN: "{}, which told nothing of themselves",
}


def sentence(path: Sequence[Segment], elapsed: float) -> str:
    """One line on where the time went; "" where nothing can be said.

    Args:
        path: the critical path.
        elapsed: seconds that the run took.
    """
    found = shares(path)
    if not found or elapsed <= 0:
        return ""
    if found[0].seconds < _TELLING * elapsed and (many := _together(path)):
        found = sorted([many, *found], key=lambda s: -s.seconds)[:1]
    told = found[:1]
    if found[0].seconds < _HALF * elapsed and len(found) > 1:
        told = found[:2]
    first, *more = (f"{_percent(s.seconds, elapsed)} %" for s in told)
    line = f"{first} of {elapsed:.1f} s: {told[0].text}"
    return line + "".join(f"; {p}: {s.text}" for p, s in zip(more, told[1:], strict=True))


def _percent(seconds: float, elapsed: float) -> int:
    return min(round(100 * seconds / elapsed), 100)


def _together(path: Sequence[Segment]) -> Share | None:
    """The kind that took longest over all nodes, where it is that of many."""
    groups: dict[Kind, list[Segment]] = defaultdict(list)
    for segment in path:
        if segment.node and segment.kind in _TOGETHER:
            groups[segment.kind].append(segment)
    many = {k: g for k, g in groups.items() if len({s.node for s in g}) > 1}
    if not many:
        return None
    kind, group = max(many.items(), key=lambda item: sum(s.seconds for s in item[1]))
    nodes = len({s.node for s in group})
    return Share(sum(s.seconds for s in group), _TOGETHER[kind].format(f"{nodes} nodes"))
