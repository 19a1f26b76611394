"""Time as a process lives it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from punchlib.core.progress import MOST, STEP, Progress


def test_who_runs_lives_as_long_as_the_clock_says() -> None:
    progress = Progress(100.0)
    for n in range(1, 26):
        progress.tick(100.0 + n * STEP)
    assert abs(progress.lived - 2.5) < 1e-6
    assert progress.stood_still == 0.0


def test_who_stands_still_has_not_lived() -> None:
    progress = Progress(0.0)
    progress.tick(30.0)
    assert progress.lived == MOST
    assert progress.stood_still == 30.0 - MOST


def test_what_may_take_long_is_looked_at_rarely() -> None:
    assert Progress(0.0, expected=2.5).step == STEP
    long = Progress(0.0, expected=300.0)
    assert long.step == 1.0
    for n in range(1, 11):
        long.tick(n * 1.2)
    assert abs(long.lived - 12.0) < 1e-6


@given(st.lists(st.floats(-1, 1e6)))
def test_no_time_is_lost_and_none_runs_backwards(times: list[float]) -> None:
    progress, last, lived = Progress(0.0), 0.0, 0.0
    passed = 0.0
    for now in times:
        passed += max(0.0, now - last)
        last = now
        progress.tick(now)
        assert progress.lived >= lived
        lived = progress.lived
        assert abs(progress.lived + progress.stood_still - passed) <= 1e-6 * (1 + passed)
