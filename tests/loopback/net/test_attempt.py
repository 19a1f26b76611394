"""One attempt's listeners: strangers come in crowds, descriptors run out, and the peer gets in."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from punchlib.core.candidates import Candidate, CandidatePair, CandidateType, TransportAddress
from punchlib.core.handshake import Terms
from punchlib.core.simultaneous_open import Plan, Technique
from punchlib.net.attempt import ACCEPT_PAUSE, MAX_UNVERIFIED, Attempt, Log
from punchlib.net.channel import SocketChannel
from punchlib.net.gather import Ends
from punchlib.net.verifying import nominate, open_channel
from tests.support.stream_rig import run, terms_pair

PEER, ELSEWHERE = "127.0.0.1", "127.0.0.2"


@dataclass
class Door:
    """A receiver's attempt that only listens, and who stands before it.

    Attributes:
        examined: how many connections it has begun to verify.
        crowd: the strangers' ends.
    """

    hosts: Sequence[str] = ()
    listener: socket.socket = field(default_factory=lambda: socket.create_server((PEER, 0)))
    log: Log = field(default_factory=Log)
    examined: int = 0
    crowd: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listener.setblocking(False)
        self.sending, self.receiving = terms_pair()
        candidates = [Candidate(CandidateType.HOST, TransportAddress(h, 9)) for h in self.hosts]
        pairs = tuple(CandidatePair(None, candidate) for candidate in candidates)
        self.attempt = Attempt[SocketChannel](
            Plan(Technique.HOLD_AND_DIAL, True, 50.0, False, (), pairs),
            Ends([], listener=self.listener),
            verify=lambda sock: self._verify(sock, self.receiving),
            nominate=lambda channel: nominate(channel, sending=False),
            discard=lambda channel: channel.close(),
            log=self.log,
        )

    async def _verify(self, sock: socket.socket, terms: Terms) -> SocketChannel:
        self.examined += 1
        return await open_channel(sock, terms)

    async def dial(self, address: str) -> socket.socket:
        """Connects from an address, and is being verified."""
        sock, before = socket.socket(), self.examined
        sock.setblocking(False)
        sock.bind((address, 0))
        await asyncio.get_running_loop().sock_connect(sock, self.listener.getsockname())
        while self.examined == before:
            await asyncio.sleep(0.001)
        return sock

    async def crowded_by(self, address: str, many: int = MAX_UNVERIFIED) -> None:
        """So many connect from there and say nothing."""
        for _ in range(many):
            self.crowd.append(await self.dial(address))


@contextlib.asynccontextmanager
async def opened(door: Door) -> AsyncIterator[Door]:
    """An attempt on its way; the peer gets in, or this fails."""
    running = asyncio.ensure_future(door.attempt.run())
    try:
        yield door
        winner = await running
        assert winner is not None
        winner.channel.close()
    finally:
        running.cancel()
        await asyncio.wait([running])
        for sock in (*door.crowd, door.listener):
            sock.close()


async def enter(sock: socket.socket, terms: Terms) -> None:
    """The peer's part, on a connection of its own."""
    with contextlib.closing(await open_channel(sock, terms)) as channel:
        await nominate(channel, sending=True)


@pytest.mark.parametrize("address", [PEER, ELSEWHERE])
def test_the_peer_comes_after_a_crowd(address: str) -> None:
    """It was refused: the strangers who had come before it were kept."""

    async def work() -> None:
        async with opened(Door([PEER])) as door:
            await door.crowded_by(address)
            peer = await door.dial(address)
            assert await asyncio.get_running_loop().sock_recv(door.crowd[0], 1) == b""
            with pytest.raises(BlockingIOError):
                door.crowd[1].recv(1)
            await enter(peer, door.sending)

    run(work)


def test_strangers_push_out_nobody_who_comes_from_an_address_of_the_peer() -> None:
    async def work() -> None:
        async with opened(Door([PEER])) as door:
            peer = await door.dial(PEER)
            await door.crowded_by(ELSEWHERE, 2 * MAX_UNVERIFIED)
            await enter(peer, door.sending)

    run(work)


def test_strangers_push_out_nobody_who_is_verified() -> None:
    """Wherever it comes from: it may have chosen this connection already."""

    async def work() -> None:
        async with opened(Door()) as door:
            channel = await open_channel(await door.dial(ELSEWHERE), door.sending)
            while not door.attempt._verified:
                await asyncio.sleep(0.001)
            await door.crowded_by(ELSEWHERE, MAX_UNVERIFIED + 1)
            await nominate(channel, sending=True)
            channel.close()

    run(work)


class Exhausted(socket.socket):
    """A listener of a process that has no descriptors left for a while.

    Attributes:
        left: so many times it cannot accept.
        asked: how often it was to.
    """

    left = asked = 0

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        self.asked += 1
        if self.left:
            self.left -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


def exhausted(times: int) -> Exhausted:
    listener = Exhausted()
    listener.bind((PEER, 0))
    listener.listen()
    listener.left = times
    return listener


def test_without_descriptors_it_rests_and_accepts_later() -> None:
    """It spun: the connection that it could not accept woke it again at once."""

    async def work() -> None:
        async with opened(Door(listener=exhausted(3))) as door:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await enter(await door.dial(PEER), door.sending)
            assert loop.time() - began >= 3 * ACCEPT_PAUSE

    run(work)


def test_an_attempt_that_ends_while_it_rests_leaves_nothing() -> None:
    async def work() -> None:
        listener = exhausted(1)
        door = Door(listener=listener)
        running = asyncio.ensure_future(door.attempt.run())
        with socket.create_connection(listener.getsockname()):
            while not listener.asked:
                await asyncio.sleep(0.001)
            running.cancel()
            await asyncio.wait([running])
            assert [again.cancelled() for again in door.attempt._resting.values()] == [True]
        listener.close()

    run(work)
