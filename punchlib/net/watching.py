"""Drives `core.liveness` on a channel: one sleeping task that wakes up for its PINGs and looks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from punchlib.core.liveness import Liveness
from punchlib.errors import PeerSilent

if TYPE_CHECKING:
    from punchlib.net.channel import Channel


@contextlib.asynccontextmanager
async def watched(
    channel: Channel, liveness: Liveness, ping: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[asyncio.TaskGroup]:
    """The peer must live for the length of a block.

    Args:
        channel: to the peer.
        liveness: what decides, new.
        ping: sends a PING.

    Yields:
        The group for the block's own tasks; the first of them that fails is what is raised.

    Raises:
        PeerSilent: the peer is dead, or must be given up.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(_watch(channel, liveness, ping, tasks))
            yield tasks
            watching.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group.exceptions[0].__cause__


async def _watch(
    channel: Channel,
    liveness: Liveness,
    ping: Callable[[], Awaitable[None]] | None,
    tasks: asyncio.TaskGroup,
) -> None:
    loop = asyncio.get_running_loop()
    pinging: asyncio.Task[None] | None = None
    try:
        while True:
            await asyncio.sleep(liveness.get_timer() - loop.time())
            if liveness.handle_timer(loop.time(), channel.signs_of_life()) and ping is not None:
                # Not awaited: the way may be full, and the looks must go on.
                pinging = tasks.create_task(_await(ping))
    except PeerSilent as error:
        raise PeerSilent(f"{error.message} ({channel.description})") from None
    finally:
        if pinging is not None:
            pinging.cancel()


async def _await(ping: Callable[[], Awaitable[None]]) -> None:
    await ping()
