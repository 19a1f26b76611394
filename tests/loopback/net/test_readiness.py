"""Waiting for a descriptor never outlasts an error on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

import pytest
import uvloop

from punchlib.net.readiness import Readiness


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_a_descriptor_in_error_is_ready_as_often_as_it_is_asked(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """uvloop ends both watches at the first POLLERR (a FIFO's reader has left)."""

    async def main() -> None:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(65536))
        ready = Readiness(writer)
        left, room = ready.readable(), ready.writable()
        await asyncio.sleep(0.05)
        assert not left.done() and not room.done()
        os.close(reader)
        async with asyncio.timeout(2):
            await asyncio.gather(left, room)
            for _ in range(3):
                await ready.writable()
                await ready.readable()
        ready.close()
        os.close(writer)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
