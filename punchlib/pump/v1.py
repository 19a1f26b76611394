"""The old (v1) wire, for an old peer: raw bytes, and FIN ends them.

The receiver sends 128 zero bytes once its FIFO is open, the sender reads them and streams. An old
peer may take minutes over its FIFO and never says that it is alive, so only TCP can tell a dead one
from a slow one; and a sender that dies looks to the receiver like a clean end. That is why v1 is
never spoken where there is a job key.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from punchlib.core.timing import TIMING, Timing
from punchlib.errors import StreamBroken, WireMismatch
from punchlib.net.channel import SocketChannel, tune
from punchlib.pump.stats import Stats
from punchlib.pump.turn import Turn

if TYPE_CHECKING:
    from punchlib.pump.fifo import FifoReader, FifoWriter

#: What the receiver says once its FIFO is open.
READY = bytes(128)

_BUFFER = 256 * 1024
# The head of struct tcp_info (linux/tcp.h), which only ever grows at its end: eight bytes, then
# rto, ato, snd_mss, rcv_mss, unacked, sacked, lost, retrans, fackets, and four times in ms.
_TCP_INFO = struct.Struct("=8B13I")
_PROBES_UNANSWERED = 5


async def send_stream_v1(
    sock: socket.socket, fifo: FifoReader, *, timing: Timing = TIMING
) -> Stats:
    """Sends all that comes out of a FIFO to an old peer; who closes what is as in `send_stream`.

    It returns when the peer's machine has everything; whether the peer's FIFO has, v1 cannot say.

    Raises:
        StreamBroken: the connection broke.
        WireMismatch: the peer answered with something else than 128 zeros.
    """
    tune(sock)
    stats = Stats()
    with contextlib.closing(SocketChannel(sock)) as channel:
        async with _alive(channel, stats, timing):
            ready = bytes(await channel.read_exactly(len(READY)))
            if ready != READY:
                raise WireMismatch(f"expected 128 zeros of an old (v1) peer, got {ready[:8]!r}…")
            buffer, turn = memoryview(bytearray(_BUFFER)), Turn()
            while size := await fifo.read(buffer):
                await channel.write(buffer[:size])
                stats.count(size)
                await turn.took(size)
            sock.shutdown(socket.SHUT_WR)
            while _unsent(sock):
                await asyncio.sleep(timing.fifo_poll_least)
            if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise channel.translate(OSError(code, os.strerror(code)))
    fifo.close()
    return stats.end()


async def receive_stream_v1(
    sock: socket.socket, fifo: FifoWriter, *, timing: Timing = TIMING
) -> Stats:
    """Writes all that an old peer sends into a FIFO; who closes what is as in `receive_stream`.

    Raises:
        StreamBroken: the connection broke. A peer that died cleanly cannot be told from an end.
    """
    tune(sock)
    stats = Stats()
    with contextlib.closing(SocketChannel(sock)) as channel:
        async with _alive(channel, stats, timing):
            await fifo.opened(timing=timing)
            await channel.write(READY)
            buffer, turn = memoryview(bytearray(_BUFFER)), Turn()
            try:
                while size := await channel.read_some(buffer):
                    await fifo.write(buffer[:size])
                    stats.count(size)
                    await turn.took(size)
            except BrokenPipeError:
                stats.stopped = True  # closing is all that an old peer understands
    fifo.close()
    return stats.end()


@contextlib.asynccontextmanager
async def _alive(channel: SocketChannel, stats: Stats, timing: Timing) -> AsyncIterator[None]:
    """Watches TCP's own signs of life, and says at which byte the connection broke."""
    try:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(_watch_tcp(channel, timing))
            yield
            watch.cancel()
    except BaseExceptionGroup as group:
        error = group.exceptions[0]
        if isinstance(error, StreamBroken):
            raise StreamBroken(
                f"{error.message}, at byte {stats.bytes}",
                next_step=error.next_step,
                at_byte=stats.bytes,
            ) from error
        raise error from error.__cause__


async def _watch_tcp(channel: SocketChannel, timing: Timing) -> None:
    """A dead peer acknowledges neither data nor window probes; a slow one does."""
    while True:
        await asyncio.sleep(timing.ping)
        info = channel.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        numbers = _TCP_INFO.unpack(info)
        probes, unacked, last_ack_ms = numbers[3], numbers[12], numbers[20]
        silent = unacked and last_ack_ms >= timing.silence * 1000
        if silent or probes >= _PROBES_UNANSWERED:
            raise StreamBroken(
                f"the peer is dead or unreachable: no acknowledgement for {last_ack_ms / 1000:g} s "
                f"({channel.description})"
            )


def _unsent(sock: socket.socket) -> int:
    """Bytes that the peer's kernel has not acknowledged (SIOCOUTQ, which is TIOCOUTQ)."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    return int(count)
