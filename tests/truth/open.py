"""Kinds of cases that are known not to hold yet; they run, are counted, and fail nothing."""

from __future__ import annotations

from collections.abc import Callable

from tests.truth.case import Case

#: Whose status bash tells nobody.
_UNSEEN = ("procsub", "pipe-first")

KINDS: dict[str, Callable[[Case], bool]] = {
    "an IFS of digits: the script waits for nothing": lambda c: "IFS=digits" in c.prologue,
    "no file may be written: bash itself dies": lambda c: "ulimit -f" in c.prologue,
    "a tool is killed where bash does not look": lambda c: c.construct in _UNSEEN,
}


def is_open(case: Case) -> bool:
    return any(kind(case) for kind in KINDS.values())
