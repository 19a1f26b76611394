"""What counts as right.

There are two good ends: the object has exactly the right bytes and every status is 0 ("right"), or
there is no new object and some status is not 0 ("refused"). A third one is let pass: the object has
the right bytes, and yet some status is not 0 ("late"), as when a victim dies after it mattered.
Everything else is bad:

    wrong     an object with other bytes, or none although every status is 0
    hang      it did not end in time
    silent    refused, and nobody said why
    refusal   refused, although nothing was struck, or only stopped for a moment, on a disk with
              room: what is harmless must go well
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from tests.truth.case import Case

FACTOR = float(os.environ.get("PUNCH_TEST_TIME_FACTOR", "1"))
GOOD = ("right", "refused", "late")


@dataclass(frozen=True)
class Ended:
    """How a node ended: its status, negative after a signal, and its stderr."""

    name: str
    status: int
    said: str


@dataclass
class Outcome:
    """How a case ended.

    Attributes:
        verdict: one of those above.
        found: says what the object is.
        key: of the output.
        folder: what the run left, where it is bad.
    """

    case: Case
    verdict: str
    ended: list[Ended]
    found: str
    struck: bool
    seconds: float
    key: str = ""
    folder: Path = field(default_factory=Path)

    @property
    def good(self) -> bool:
        return self.verdict in GOOD

    def __str__(self) -> str:
        lines = [
            f"{self.verdict.upper()}: {self.case}",
            f"  {self.found}; after {self.seconds:.1f} s; {'' if self.struck else 'not '}struck",
        ]
        for node in self.ended:
            lines.append(f"  {node.name}: status {node.status}")
            lines += [f"    | {line}" for line in node.said.strip().splitlines()[-12:]]
        return "\n".join([*lines, f"  {self.folder}"])


def judge(
    case: Case,
    *,
    ended: list[Ended],
    found: bytes | None,
    expected: bytes,
    before: bytes | None,
    struck: bool,
    in_time: bool,
    seconds: float,
) -> Outcome:
    """The outcome of a run whose nodes have all ended."""
    bad = [node for node in ended if node.status]
    verdict = "right"
    if found == expected:
        what = "the object is right"
        verdict = "late" if bad else "right"
    elif found == before:
        what = "the object is as before" if before else "there is no object"
        verdict = "refused" if bad else "wrong"
    else:
        size = len(found or b"")
        what = f"the object has other bytes: {size} instead of {len(expected)}"
        # The old wire has no word for "that was all": the statuses alone tell.
        verdict = "refused" if bad and case.peer != "v2" else "wrong"
    # An old peer waits without an end for one that does not come.
    if verdict != "wrong" and not in_time and case.peer == "v2":
        verdict = "hang"
    elif verdict == "refused" and harmless(case, struck, expected):
        verdict = "refusal"
    elif verdict == "refused" and not _said_something(case, ended):
        verdict = "silent"
    return Outcome(case, verdict, ended, what, struck or bool(case.quits), seconds)


def harmless(case: Case, struck: bool, expected: bytes) -> bool:
    """Whether nothing happened to it that could make it fail."""
    if case.disk != "ok" or case.quits or "ulimit -f" in case.prologue:
        return False
    if case.peer != "v2":
        return False  # it dials once, and the first refusal is its end
    if case.work == "grep" and not expected:
        return False  # status 1; behind many constructs nobody can see that it was grep
    return not struck or case.signal == "STOP"


def _said_something(case: Case, ended: list[Ended]) -> bool:
    mute = case.construct == "stderr-closed" or bool(
        {"stderr closed", "ulimit -f"} & set(case.prologue)
    )
    killed = case.victim in ("bash", "group")
    return mute or killed or any(node.said.strip() for node in ended if node.status)
