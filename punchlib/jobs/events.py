"""What happens during a run, as data; the command line decides how it looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from punchlib.runs.timeline import Moment

Kind = Literal["step", "warning", "node-started", "node-ended", "node-failed"]


@dataclass(frozen=True)
class JobEvent:
    """Something happened.

    Attributes:
        at: seconds since the run began.
        kind: what sort of thing; `node-failed` is also the end of a node.
        text: for people.
        node: the node it happened to; "" for the job as a whole.
    """

    at: float
    kind: Kind
    text: str
    node: str = ""


Observer = Callable[[JobEvent], None]
Record = Callable[[Sequence[Moment]], None]


class EventSink:
    """Stamps events with the time since it was made, hands them on, and keeps them.

    Args:
        observer: is told of each, as it happens.

    Attributes:
        began: when it was made, in seconds since 1970.
        moments: the run's events and its nodes', as they came.
    """

    def __init__(self, observer: Observer) -> None:
        self.began = time.time()
        self.moments: list[Moment] = []
        self._observer = observer
        self._records: list[Record] = []
        self._clock = time.monotonic()
        self._lock = threading.Lock()

    def afresh(self) -> EventSink:
        """One for the next run, with the same observer."""
        return EventSink(self._observer)

    def elapsed(self) -> float:
        return time.monotonic() - self._clock

    def tell(self, kind: Kind, text: str, node: str = "", **attributes: Any) -> None:
        """Tells of something that the runner does or sees.

        Args:
            kind: what sort of thing.
            text: for people.
            node: the node it happened to; "" for the job as a whole.
            **attributes: what more there is to keep.
        """
        at = self.note(f"run.{kind.replace('-', '_')}", node, text=text, **attributes)
        self._observer(JobEvent(at, kind, text, node))

    def note(self, event: str, node: str = "", **attributes: Any) -> float:
        """Keeps an event that nobody need be told of; returns when it was.

        Args:
            event: its name.
            node: the node it happened to; "" for the job as a whole.
            **attributes: what more there is to keep; their names get `punch.` in front.
        """
        at = self.elapsed()
        facts = {f"punch.{name}": value for name, value in attributes.items()}
        self.add([Moment(at, node, event, facts)])
        return at

    def add(self, moments: Sequence[Moment]) -> None:
        """Keeps what nodes have told."""
        with self._lock:
            self.moments += moments
            for record in self._records:
                record(moments)

    def record(self, record: Record) -> None:
        """Hands on what there is, and all that comes, to one more who keeps it."""
        with self._lock:
            record(self.moments)
            self._records.append(record)
