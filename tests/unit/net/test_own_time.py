"""Time-outs of a process that stands still, on a virtual clock."""

from __future__ import annotations

import asyncio

import pytest

from punchlib.net.own_time import own_timeout
from tests.support.virtual_loop import VirtualLoop


def took(limit: float, work: float, *, stands_still: tuple[float, float] | None = None) -> float:
    """How long a block of so much waiting took.

    Args:
        limit: its time-out.
        work: seconds.
        stands_still: when the process stands still, and for how long.
    """

    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        if stands_still is not None:
            at, seconds = stands_still
            loop.call_later(at, lambda: setattr(loop, "now", loop.now + seconds))
        try:
            async with own_timeout(limit):
                await asyncio.sleep(work)
        except TimeoutError:
            return -loop.time()
        return loop.time()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


@pytest.mark.parametrize("limit", [0.3, 2.5, 8.0, 60.0])
def test_who_runs_is_timed_by_the_clock(limit: float) -> None:
    assert took(limit, limit * 0.9) == pytest.approx(limit * 0.9)
    assert took(limit, limit * 2) == pytest.approx(-limit)


@pytest.mark.parametrize("limit", [0.3, 2.5, 8.0])
def test_who_stood_still_has_its_time_again(limit: float) -> None:
    """The answer is there when it wakes up, or comes soon after."""
    assert took(limit, limit * 0.5, stands_still=(limit / 4, 30.0)) > 30.0
    assert took(limit, 30.0 + limit / 2, stands_still=(limit / 4, 30.0)) > 30.0
    # But its time does end.
    assert took(limit, 1e6, stands_still=(limit / 4, 30.0)) == pytest.approx(-30.0 - limit, abs=1)
