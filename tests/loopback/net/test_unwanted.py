"""A connection that is made in the moment in which nobody wants it any more is closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest

from punchlib.config import Config, Route, Security
from punchlib.core.candidates import TransportAddress
from punchlib.core.records import Record
from punchlib.core.simultaneous_open import Plan, Technique
from punchlib.core.transitions import Try
from punchlib.net.attempt import Winner
from punchlib.net.connection import Spec
from punchlib.net.connector import Connector
from punchlib.net.establishing import Establishing
from punchlib.net.unwanted import drop
from punchlib.rendezvous.memory import MemoryStore
from tests.support.stream_rig import channel_pair, run, tcp_pair

NOWHERE = TransportAddress("127.0.0.1", 9)
PLAN = Plan(Technique.NONE, True, 1.0, False, (), ())


def won(way: Any) -> Winner[Any]:
    return Winner(way, Route.PUNCHED, ("here", 1), ("there", 2))


async def made(kind: str) -> tuple[Any, socket.socket]:
    """What an attempt, S3 or an attempt with an old peer has made; and the peer's end."""
    if kind == "v1":
        here, there = tcp_pair()
        return won(here), there
    channel, peer = await channel_pair()
    return channel if kind == "s3" else won(channel), peer.sock


async def is_closed(there: socket.socket) -> bool:
    with there, contextlib.suppress(ConnectionResetError):
        return not await asyncio.get_running_loop().sock_recv(there, 1)
    return True


@pytest.mark.parametrize("kind", ["attempt", "s3", "v1"])
def test_a_stop_in_the_moment_of_success(kind: str) -> None:
    """A deadline, or a signal: the peer's end stayed open, and waited for what never came."""

    async def work() -> None:
        connector = Connector(Config(), MemoryStore())
        establishing = Establishing(connector._shared, Spec("k", "1", "0", sending=False))
        peer = Record(NOWHERE, NOWHERE)
        attempt: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        command = Try(PLAN, peer, Security.AUTHENTICATED)
        trying = asyncio.ensure_future(establishing._unless_peer_changes(command, attempt))
        await asyncio.sleep(0.01)
        result, there = await made(kind)
        attempt.set_result(result)
        trying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trying
        assert await is_closed(there)
        await connector.close()

    run(work)


def test_what_has_made_nothing_is_dropped_in_silence() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        nothing, failed = loop.create_future(), loop.create_future()
        nothing.set_result(None)
        failed.set_exception(OSError("no port"))
        for one in (nothing, failed, asyncio.ensure_future(asyncio.sleep(60))):
            await drop(one)
            assert one.done()

    run(work)
