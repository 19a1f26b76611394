"""A run's events, its nodes' and its own, in one order and by one clock (docs/events.md).

Machines' clocks differ. What the runner knows of a node's is that the node took the event after it
was sent, and answered before the answer came: so the node's clock is ahead by at least `answered -
got` and by at most `received - sent`. Two clocks that NTP keeps agree within that, and are left as
they are; another is moved as little as puts effect after cause.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from punchlib.node.protocol import Clock

VERSION = 1


@dataclass(frozen=True)
class Moment:
    """One event of a run.

    Attributes:
        at: seconds since the run began, by the runner's clock.
        node: whose it is; "" for the run's own.
        event: its name, as docs/events.md has it.
        attributes: what more it says.
    """

    at: float
    node: str
    event: str
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """An attribute as text; "" where there is none."""
        value = self.attributes.get(name)
        return "" if value is None else str(value)

    def number(self, name: str) -> float:
        """An attribute as a number; 0.0 where there is none."""
        value = self.attributes.get(name)
        return float(value) if isinstance(value, int | float) else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "v": VERSION,
            "at": round(self.at, 6),
            "node": self.node,
            "event": self.event,
            "attributes": dict(self.attributes),
        }


def ahead(clock: Clock | None, sent: float, got: float) -> float:
    """By how many seconds a node's clock is ahead of ours, as little as can be.

    Args:
        clock: the node's; None from a node that does not say.
        sent: when we sent it the event.
        got: when we had its result.
    """
    if clock is None:
        return 0.0
    least, most = clock.answered - got, clock.received - sent
    return max(least, min(0.0, most))


def moments(events: Iterable[Mapping[str, Any]], began: float, ahead: float) -> list[Moment]:
    """A node's events by our clock; what is no event is left out.

    Args:
        events: as the node's result has them.
        began: when the run began, in seconds since 1970.
        ahead: by how much the node's clock is ahead of ours.
    """
    found = []
    for event in events:
        try:
            at = float(event["time"]) - ahead - began
            attributes = dict(event.get("attributes") or {})
            found.append(Moment(at, str(event.get("node", "")), str(event["event"]), attributes))
        except (KeyError, TypeError, ValueError):
            continue
    return found


def read(lines: Iterable[str]) -> list[Moment]:
    """The moments of a run's events.jsonl, in order.

    Lines that are cut short, or of a kind that we do not know, are left out.
    """
    found = []
    for line in lines:
        try:
            data = json.loads(line)
            found.append(
                Moment(
                    float(data["at"]),
                    str(data["node"]),
                    str(data["event"]),
                    dict(data.get("attributes") or {}),
                )
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return sorted(found, key=lambda moment: moment.at)
