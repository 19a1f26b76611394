"""Work that nobody waits for any more."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from punchlib.net import sockets
from punchlib.net.attempt import Winner
from punchlib.net.channel import Channel


async def cancel(work: asyncio.Future[Any]) -> None:
    """It ends; a result that it has already is the caller's."""
    if not work.done():
        work.cancel()
        await asyncio.wait([work])


async def drop(work: asyncio.Future[Any]) -> None:
    """It ends, and what it has connected, in this very moment perhaps, is closed."""
    work.add_done_callback(_close_made)  # also where we are cancelled while it ends
    await cancel(work)


def _close_made(work: asyncio.Future[Any]) -> None:
    if work.cancelled() or work.exception() is not None:
        return
    made: Winner[Any] | Channel | None = work.result()
    way: socket.socket | Channel | None = made.channel if isinstance(made, Winner) else made
    if isinstance(way, socket.socket):
        sockets.abort(way)
    elif way is not None:
        way.close()
