"""The drawn cases themselves, and the judge: without running anything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.truth.case import Case, draw, possible, simpler
from tests.truth.scripts import CONSTRUCTS
from tests.truth.suite import COVERING, DIMENSIONS, Report
from tests.truth.verdict import Ended, Outcome, judge


def test_a_draw_covers_every_value() -> None:
    drawn = [draw("1", number) for number in range(COVERING)]
    report = Report([Outcome(case, "right", [], "", True, 0.0) for case in drawn])
    assert report.uncovered == []


def test_a_case_is_what_its_text_says() -> None:
    for number in range(200):
        case = draw("1", number)
        assert Case.parse(str(case)) == case
        assert draw("1", number) == case


def test_simplifying_ends_at_the_plain_case() -> None:
    assert possible(Case())
    assert list(simpler(Case())) == []
    for number in range(50):
        case, steps = draw("1", number), 0
        while following := next(simpler(case), None):
            case, steps = following, steps + 1
            assert steps < 100
        # What is left depends on one another, as a worker of the engine on the way of running.
        assert possible(case)


def test_every_construct_has_a_text() -> None:
    assert set(CONSTRUCTS) == set(DIMENSIONS["construct"])


RIGHT, BEFORE = b"right", b"before"
STRUCK = Case(victim="stage")


@pytest.mark.parametrize(
    ("case", "statuses", "found", "verdict"),
    [
        (STRUCK, (0, 0), RIGHT, "right"),
        (STRUCK, (0, 3), RIGHT, "late"),
        (STRUCK, (0, 3), BEFORE, "refused"),
        (STRUCK, (0, 0), BEFORE, "wrong"),
        (STRUCK, (0, 0), b"rig", "wrong"),
        (STRUCK, (3, 0), b"rig", "wrong"),
        (STRUCK, (3, -9), None, "wrong"),  # what was there before has gone
        (replace(STRUCK, peer="v1-a"), (3, 0), b"rig", "refused"),
        (replace(STRUCK, peer="v1-a"), (0, 0), b"rig", "wrong"),
        (replace(STRUCK, signal="STOP"), (0, 3), BEFORE, "refusal"),
        (Case(disk="tmp-full"), (0, 3), BEFORE, "refused"),
    ],
)
def test_verdicts(case: Case, statuses: tuple[int, int], found: bytes | None, verdict: str) -> None:
    ended = [Ended(name, status, "why") for name, status in zip("ab", statuses, strict=True)]
    outcome = judge(
        case,
        ended=ended,
        found=found,
        expected=RIGHT,
        before=BEFORE,
        struck=case.victim != "none",
        in_time=True,
        seconds=1.0,
    )
    assert outcome.verdict == verdict


@pytest.mark.parametrize(
    ("said", "in_time", "verdict"),
    [("why", True, "refused"), ("", True, "silent"), ("why", False, "hang")],
)
def test_how_it_ends(said: str, in_time: bool, verdict: str) -> None:
    outcome = judge(
        STRUCK,
        ended=[Ended("a", 1, said)],
        found=None,
        expected=RIGHT,
        before=None,
        struck=True,
        in_time=in_time,
        seconds=1.0,
    )
    assert outcome.verdict == verdict
