"""Kinds of cases that are known not to hold yet; they run, are counted, and fail nothing."""

from __future__ import annotations

from collections.abc import Callable

from tests.truth.case import Case

KINDS: dict[str, Callable[[Case], bool]] = {
    "a shell that a script has set up in its own way": lambda c: bool(c.prologue),
    "a stage inside another construct": lambda c: c.construct != "braces",
    "a full disk": lambda c: c.disk != "ok",
    "a node dies, by hand or under a handler": lambda c: (
        c.victim != "none" and c.way != "job" and c.topology != "alone"
    ),
    "an old peer": lambda c: c.peer != "v2",
}


def is_open(case: Case) -> bool:
    return any(kind(case) for kind in KINDS.values())
