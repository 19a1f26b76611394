"""The phases of a node, and of one end of a stream, from the times that are known.

A phase lasts from its first mark to the next one that is known: where a mark is missing, the phase
before it lasts longer, so nothing is lost and nothing overlaps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from punchlib.runs.story import End, NodeStory


@dataclass(frozen=True)
class Phase:
    """What a node, or an end, was doing for a while.

    Attributes:
        name: a key of LABELS.
        begin, end: seconds since the run began.
    """

    name: str
    begin: float
    end: float

    @property
    def label(self) -> str:
        return LABELS[self.name]


#: What a phase is called, for people. The first six are a node's, the rest a stream's.
LABELS = {
    "start": "starts",
    "cold": "starts cold",
    "script": "fetches its script",
    "run": "runs its script",
    "finish": "ends and answers",
    "unknown": "told nothing",
    "prepare": "finds its address, registers",
    "wait": "waits for its peer to register",
    "punch": "connects",
    "idle": "connected, no bytes yet",
    "move": "bytes move",
    "ack": "waits for the receipt",
}
OF_NODES, OF_STREAMS = tuple(LABELS)[:6], tuple(LABELS)[6:]

_NODE = (("asked", "start"), ("invoked", "script"), ("began", "run"), ("stopped", "finish"))
_END = (
    ("started", "prepare"),
    ("registered", "wait"),
    ("peer_seen", "punch"),
    ("connected", "idle"),
    ("first_byte", "move"),
    ("last_byte", "ack"),
)


def of_node(node: NodeStory) -> list[Phase]:
    """A node's phases, in order."""
    over = node.over
    if not node.told:
        asked = node.times.get("asked", over)
        return [Phase("unknown", asked, over)] if asked < over else []
    marks = [(m, "cold" if n == "start" and node.cold else n) for m, n in _NODE]
    return _between(marks, node.times, over)


def of_end(end: End, over: float) -> list[Phase]:
    """The phases of one end of a stream, in order.

    Args:
        end: which.
        over: seconds since the run began, when its node had ended.
    """
    times = end.times
    last = times.get("acknowledged", times.get("last_byte", over))
    return _between(_END, times, min(last, times.get("failed", last)))


def _between(
    marks: Sequence[tuple[str, str]], times: Mapping[str, float], over: float
) -> list[Phase]:
    known = [(times[mark], name) for mark, name in marks if mark in times]
    found: list[Phase] = []
    at = 0.0
    for number, (begin, name) in enumerate(known):
        following = known[number + 1][0] if number + 1 < len(known) else over
        begin, end = max(begin, at), min(following, over)
        if begin < end:
            found.append(Phase(name, begin, end))
            at = end
    return found
