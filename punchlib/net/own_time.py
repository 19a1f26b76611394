"""A time-out that a process which stands still does not run into (core/progress.py)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from punchlib.core.progress import Progress

#: Seconds that are as good as none: a loop's clock need not move for less.
LEAST = 0.001


@contextlib.asynccontextmanager
async def own_timeout(seconds: float) -> AsyncIterator[None]:
    """`asyncio.timeout`, by the process's own progress.

    Raises:
        TimeoutError: so long has it lived, and the block has not ended.
    """
    loop = asyncio.get_running_loop()
    progress = Progress(loop.time(), expected=seconds)
    timers: list[asyncio.TimerHandle] = []
    async with asyncio.timeout(None) as limit:

        def look() -> None:
            progress.tick(loop.time())
            left = seconds - progress.lived
            if left > LEAST:
                timers[:] = [loop.call_later(min(progress.step, left), look)]
            else:
                limit.reschedule(loop.time())

        look()
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()
