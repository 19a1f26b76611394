"""The old wire, against an old peer written here from docs/wire.md with plain blocking sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from pathlib import Path

import pytest

from punchlib.config import Route
from punchlib.errors import Cause, StreamBroken, WireMismatch
from punchlib.net.connection import Connection
from punchlib.pump.fifo import FifoReader
from punchlib.pump.stats import Stats
from punchlib.pump.v1 import receive_stream_v1, send_stream_v1
from tests.support.stream_rig import (
    FAST,
    Outcome,
    Rig,
    background,
    digest,
    outcome,
    payload,
    run,
    saying,
    tcp_pair,
)


class OldPeer:
    """What the old program does once its TCP connection is up."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._sock = sock
        self.got = bytearray()

    def receive(self) -> None:
        """Its FIFO is open: 128 zeros, then everything up to FIN."""
        with self._sock:
            self._sock.sendall(bytes(128))
            while piece := self._sock.recv(65536):
                self.got += piece

    def is_reset(self) -> None:
        """The same, up to an error: a FIN would say that this was everything."""
        with pytest.raises(ConnectionResetError):
            self.receive()

    def send(self, data: bytes) -> None:
        """Reads 128 bytes, whatever they are, streams, and closes."""
        with self._sock:
            left = 128
            while left:
                left -= len(self._sock.recv(left))
            self._sock.sendall(data)


async def sending(rig: Rig, sock: socket.socket, failure: str | None = None) -> Outcome:
    with contextlib.closing(rig.reader()) as fifo:
        work = send_stream_v1(sock, fifo, upstream_failure=saying(failure), timing=FAST)
        return await outcome(work)


async def receiving(rig: Rig, sock: socket.socket) -> Outcome:
    with contextlib.closing(rig.writer()) as fifo:
        return await outcome(receive_stream_v1(sock, fifo, timing=FAST))


@pytest.mark.parametrize("size", [0, 1, 128, 129, 65536, 3_000_001])
def test_we_send_to_an_old_receiver(tmp_path: Path, size: int) -> None:
    rig = Rig(tmp_path, payload(size))
    here, there = tcp_pair()
    old = OldPeer(there)
    with background(rig.feed, rig.release), background(old.receive):
        stats = run(lambda: sending(rig, here))
    assert isinstance(stats, Stats), stats
    assert stats.bytes == size
    assert digest(old.got) == digest(rig.data)


@pytest.mark.parametrize("size", [0, 1, 128, 129, 65536, 3_000_001])
def test_an_old_sender_sends_to_us(tmp_path: Path, size: int) -> None:
    rig = Rig(tmp_path, payload(size))
    here, there = tcp_pair()
    old = OldPeer(there)
    with background(rig.drain, rig.release), background(lambda: old.send(rig.data)):
        stats = run(lambda: receiving(rig, here))
    assert isinstance(stats, Stats), stats
    assert digest(rig.got) == digest(rig.data)


def test_both_of_us_as_old_peers(tmp_path: Path) -> None:
    rig = Rig(tmp_path, payload(1_000_000))
    here, there = tcp_pair()

    async def work() -> tuple[Outcome, Outcome]:
        return await asyncio.gather(sending(rig, here), receiving(rig, there))

    with rig.stages():
        outcomes = run(work)
    assert all(isinstance(one, Stats) for one in outcomes), outcomes
    assert digest(rig.got) == digest(rig.data)


@pytest.mark.slow
def test_an_old_peer_may_take_its_time(tmp_path: Path) -> None:
    """Its FIFO opens late, and later it stops reading: longer than any silence of v2."""
    rig = Rig(tmp_path, payload(20_000_000))
    here, there = tcp_pair()
    there.setblocking(True)

    async def work() -> Outcome:
        running = asyncio.create_task(sending(rig, here))
        await asyncio.sleep(1.5 * FAST.silence)
        there.sendall(bytes(128))
        await asyncio.sleep(3 * FAST.silence)
        assert not running.done()
        got = bytearray()
        while piece := await asyncio.to_thread(there.recv, 1 << 20):
            got += piece
        assert digest(got) == digest(rig.data)
        there.close()
        return await running

    with background(rig.feed, rig.release):
        assert isinstance(run(work), Stats)


def test_an_old_peer_that_dies_is_an_error_at_a_byte(tmp_path: Path) -> None:
    rig = Rig(tmp_path, payload(20_000_000))
    here, there = tcp_pair()
    there.setblocking(True)

    def die() -> None:
        there.sendall(bytes(128))
        there.recv(100_000)
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        there.close()

    with background(rig.feed, rig.release), background(die):
        error = run(lambda: sending(rig, here))
    assert isinstance(error, StreamBroken), error
    assert error.at_byte is not None
    assert 0 < error.at_byte < len(rig.data)
    assert f"at byte {error.at_byte}" in error.message


def test_an_old_sender_that_is_reset_is_an_error(tmp_path: Path) -> None:
    rig = Rig(tmp_path, b"")
    here, there = tcp_pair()
    there.setblocking(True)

    def die() -> None:
        there.recv(128)
        there.sendall(b"x" * 1000)
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        there.close()

    with background(rig.drain, rig.release), background(die):
        error = run(lambda: receiving(rig, here))
    assert isinstance(error, StreamBroken), error


def test_an_upstream_failure_resets_the_connection(tmp_path: Path) -> None:
    rig = Rig(tmp_path, payload(300_000))
    here, there = tcp_pair()
    with background(rig.feed, rig.release), background(OldPeer(there).is_reset):
        error = run(lambda: sending(rig, here, "s3-get.py: no such object"))
    assert isinstance(error, StreamBroken), error
    assert error.at_byte == 300_000
    assert error.cause == Cause("s3-get.py: no such object")


def test_a_source_that_cannot_be_read_resets_the_connection() -> None:
    here, there = tcp_pair()

    async def work() -> Outcome:
        with contextlib.closing(FifoReader.open_path("/proc/self/mem")) as nothing_at_0:
            return await outcome(send_stream_v1(here, nothing_at_0, timing=FAST))

    with background(OldPeer(there).is_reset):
        error = run(work)
    assert isinstance(error, StreamBroken), error
    assert "cannot read /proc/self/mem" in error.message


def test_a_sender_that_is_stopped_resets_the_connection(tmp_path: Path) -> None:
    rig = Rig(tmp_path, b"")
    here, there = tcp_pair()
    old = OldPeer(there)

    async def work() -> None:
        running = asyncio.create_task(sending(rig, here))
        stage = await asyncio.to_thread(os.open, rig.source, os.O_WRONLY)
        os.write(stage, b"half")
        while not old.got:
            await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        os.close(stage)

    with background(old.is_reset):
        run(work)
    assert old.got == b"half"


def test_a_connection_that_nobody_streams_on_is_reset() -> None:
    """Its owner gave up between connecting and streaming; a FIN would be an empty stream."""
    here, there = tcp_pair()

    async def left(_: BaseException | None) -> None:
        pass

    async def work() -> None:
        async with Connection(None, here, Route.HOST, 1, "", "", "", 0.0, 0.0, 0.0, left):
            pass

    with background(OldPeer(there).is_reset):
        run(work)


def test_something_else_than_zeros_is_no_old_peer(tmp_path: Path) -> None:
    rig = Rig(tmp_path, b"never sent")
    here, there = tcp_pair()
    there.sendall(b"\x93punch\r\n".ljust(128, b"?"))
    with background(rig.feed, rig.release):
        error = run(lambda: sending(rig, here))
    assert isinstance(error, WireMismatch), error
    there.close()


def test_a_reader_that_leaves_closes_the_connection(tmp_path: Path) -> None:
    rig = Rig(tmp_path, payload(20_000_000), drain_most=1000)
    here, there = tcp_pair()
    old = OldPeer(there)

    def send() -> None:
        with contextlib.suppress(ConnectionError):
            old.send(rig.data)

    with background(rig.drain, rig.release), background(send):
        stats = run(lambda: receiving(rig, here))
    assert isinstance(stats, Stats)
    assert stats.stopped
    assert rig.got == rig.data[:1000]


def test_nothing_is_said_before_the_fifo_is_open(tmp_path: Path) -> None:
    """An old sender takes the 128 bytes for a sign that it may stream."""
    rig = Rig(tmp_path, b"")
    here, there = tcp_pair()

    async def work() -> None:
        running = asyncio.create_task(receiving(rig, here))
        await asyncio.sleep(0.1)
        with pytest.raises(BlockingIOError):
            there.recv(1)
        fd = os.open(rig.sink, os.O_RDONLY | os.O_NONBLOCK)
        await asyncio.sleep(0.2)
        assert there.recv(200) == bytes(128)
        there.close()
        assert isinstance(await running, Stats)
        os.close(fd)

    run(work)
