"""What happens during a run, as data; the command line decides how it looks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

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


class EventSink:
    """Stamps events with the time since it was made and hands them on."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._began = time.monotonic()

    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def tell(self, kind: Kind, text: str, node: str = "") -> None:
        self._observer(JobEvent(self.elapsed(), kind, text, node))
