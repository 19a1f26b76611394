"""What is stopped says what it was doing."""

from __future__ import annotations

import asyncio

from punchlib.stopping import doing, stopped


def test_the_innermost_wait_comes_first() -> None:
    async def wait() -> None:
        with doing(lambda: "serving k1"), doing(lambda: "waiting for the peer"):
            await asyncio.Event().wait()

    async def main() -> str:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as stop:
            return stopped(stop)
        raise AssertionError("it was not stopped")

    assert asyncio.run(main()) == "stopped, while waiting for the peer; serving k1"


def test_nothing_is_said_of_what_ends_by_itself() -> None:
    with doing(lambda: 1 / 0):  # type: ignore[arg-type,return-value]
        pass
    assert stopped(asyncio.CancelledError()) == "stopped"
