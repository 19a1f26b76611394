"""Kinds of cases that are known not to hold yet; they run, are counted, and fail nothing."""

from __future__ import annotations

from collections.abc import Callable

from tests.truth.case import Case

#: Bash tells nobody the status of what is in there, and who dies of these leaves no word.
_UNSEEN = ("procsub", "pipe-first")
_WORDLESS = ("KILL", "SEGV")

KINDS: dict[str, Callable[[Case], bool]] = {
    "a tool is killed where bash does not look": lambda c: (
        c.construct in _UNSEEN
        and c.victim.partition("-")[0] == c.construct_on
        and c.signal in _WORDLESS
    ),
}


def is_open(case: Case) -> bool:
    return any(kind(case) for kind in KINDS.values())
