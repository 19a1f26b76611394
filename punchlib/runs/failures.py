"""The failures of a run as its run.json has them, the first cause before those that follow from it.

The order is the one in which `punchlib.jobs.report` has the nodes' results themselves: `rank`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from punchlib.node.protocol import Ended
from punchlib.runs.story import dicts, number
from punchlib.runtime import state
from punchlib.runtime.markers import Marker


@dataclass(frozen=True)
class Failure:
    """A node that failed, or was stopped.

    Attributes:
        at: seconds since the run began.
        how: as `Ended` has it.
        cause: why, as the node says.
        origin: the node whose failure it repeats; "" where it failed by itself.
        parts: what each of its components said.
        stderr: the end of it.
    """

    id: str
    place: str
    at: float
    how: str
    cause: str
    origin: str = ""
    parts: list[Marker] = field(default_factory=list)
    stderr: str = ""


@dataclass(frozen=True)
class Failures:
    """What went wrong.

    Attributes:
        message: the run's own error, its first line; "" where it has none.
        detail: the rest of it.
        next_step: what can be done about it.
        first: the node on which the others depend, as far as can be told.
        others: those that failed as well.
        stopped: those that were stopped when the run was given up.
    """

    message: str = ""
    detail: str = ""
    next_step: str = ""
    first: Failure | None = None
    others: list[Failure] = field(default_factory=list)
    stopped: list[Failure] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.message or self.first or self.stopped)


def of(run: Mapping[str, Any]) -> Failures:
    """Gathers them; what has not the form that we know is left out."""
    bad = [n for n in dicts(run, "nodes") if n.get("ok") is False]
    failed = sorted((n for n in bad if not n.get("stopped")), key=_rank)
    found = [_failure(n) for n in failed]
    told = run.get("error")
    error = told if isinstance(told, Mapping) else {}
    message, _, detail = str(error.get("message") or "").partition("\n")
    return Failures(
        message=message,
        detail=detail,
        next_step=str(error.get("next_step") or ""),
        first=found[0] if found else None,
        others=found[1:],
        stopped=[_failure(n) for n in bad if n.get("stopped")],
    )


def rank(how: str, has_result: bool, first: Marker | None) -> tuple[int, int]:
    """How near a node that failed is to the first cause; the nearest is the least.

    Clocks differ between machines and a broken stream is often noticed before the death that
    broke it is reported. So the kind of failure counts first: a node that was lost, then one
    whose own stage failed, then broken streams (one that only repeats what its peer reported
    after the others), then what we stopped.

    Args:
        how: as `Ended` has it.
        has_result: its script came to an end that it told.
        first: the oldest marker of a component that failed and was not told to stop.
    """
    if how == Ended.CANCELLED:
        return 3, 0
    if how == Ended.LOST or not has_result:
        return 0, 0
    if first and first.is_stream:
        return 2, int(first.kind == state.REPORTED)
    return 1, 0


def _failure(node: Mapping[str, Any]) -> Failure:
    return Failure(
        id=str(node.get("id", "")),
        place=str(node.get("place") or ""),
        at=number(node.get("ended_s")),
        how=str(node.get("how") or ""),
        cause=str(node.get("cause") or ""),
        origin=str(node.get("origin") or ""),
        parts=[_part(p) for p in dicts(node, "failures")],
        stderr=str(node.get("stderr_tail") or "").rstrip(),
    )


def _part(part: Mapping[str, Any]) -> Marker:
    return Marker.from_json({"component": "", "reason": "", **part})


def _rank(node: Mapping[str, Any]) -> tuple[int, int, float]:
    markers = map(_part, dicts(node, "failures"))
    first = next((m for m in markers if m.kind != state.STOPPED), None)
    told = node.get("returncode") is not None
    return *rank(str(node.get("how") or ""), told, first), number(node.get("ended_s"))
