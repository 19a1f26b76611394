"""How often the S3 route looks into the bucket."""

from __future__ import annotations

from itertools import pairwise

import pytest

from punchlib.core.timing import TIMING
from punchlib.net.s3_route import Looks


def looked(looks: Looks, start: float, end: float) -> list[float]:
    """When it looks, though nothing comes."""
    times, now = [], start
    while now < end:
        now += looks.pause(now)
        times.append(now)
    return times


def test_what_comes_soon_is_noticed_at_once_and_what_comes_late_a_hundredth_later() -> None:
    times = looked(Looks(TIMING, 100.0), 100.0, 100.0 + 3600)
    assert times[0] - 100 == pytest.approx(TIMING.object_look_least)
    for before, after in pairwise(times):
        assert after - before <= max(TIMING.object_look_most, (before - 100) / 100) + 1e-9


def test_who_waits_for_long_looks_seldom() -> None:
    looks = Looks(TIMING, 0.0)
    looked(looks, 0.0, 600)
    assert len(looked(looks, 600, 1200)) <= 210, "it was 1200"


def test_after_news_it_looks_as_at_first() -> None:
    looks = Looks(TIMING, 0.0)
    looked(looks, 0.0, 600)
    looks.begin(700.0)
    assert looked(looks, 700, 710) == pytest.approx(looked(Looks(TIMING, 700.0), 700, 710))
