"""Starts workers before a job needs them: a cold start of one is waited for by all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from punchlib.jobs.launch import NodeLost
from punchlib.node.probe_event import Probe

#: Seconds for which each is held: while it is, the next call goes to another worker. Lambda starts
#: calls that come together within about a second.
HOLD = 2.0
#: Calls at once.
MOST = 1000


@dataclass(frozen=True)
class Warmth:
    """How it went.

    Attributes:
        cold: workers that were started.
        warm: workers that were there already.
        lost: why a worker could not be had, for each.
        seconds: what it took.
    """

    cold: int
    warm: int
    lost: tuple[NodeLost, ...]
    seconds: float

    def sentence(self) -> str:
        """One line for people."""
        text = f"{self.cold + self.warm} workers are warm after {self.seconds:.1f} s"
        text += f": {self.cold} were started, {self.warm} were there"
        return text + (f"; {len(self.lost)} could not be had" if self.lost else "")


def warm(ask: Callable[[Probe], Mapping[str, Any]], workers: int, hold: float = HOLD) -> Warmth:
    """Has so many workers ready at once.

    They stay for as long as Lambda keeps them (minutes); nobody else must call the function
    meanwhile.

    Args:
        ask: asks a worker (`LambdaLauncher.probe`).
        workers: how many.
        hold: seconds for which each is kept busy.
    """
    began = time.monotonic()

    def one(_: int) -> bool | NodeLost:
        try:
            return bool(ask(Probe("warm", seconds=hold)).get("cold"))
        except NodeLost as lost:
            return lost

    with ThreadPoolExecutor(min(workers, MOST)) as pool:
        found = list(pool.map(one, range(workers)))
    lost = tuple(f for f in found if isinstance(f, NodeLost))
    cold = found.count(True)
    took = time.monotonic() - began
    return Warmth(cold, len(found) - cold - len(lost), lost, took)
