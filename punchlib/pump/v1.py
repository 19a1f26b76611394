"""The old (v1) wire, for an old peer: raw bytes, and FIN ends them.

The receiver sends 128 zero bytes once its FIFO is open, the sender reads them and streams. A sender
that fails ends with a reset: the one word for it that v1 has. An old peer may take minutes over its
FIFO and never says that it is alive, so only TCP can tell a dead one from a slow one; and a sender
that is killed looks to the receiver like a clean end. That is why v1 is never spoken where there is
a job key.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import math
import os
import socket
import struct
import termios
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from punchlib.core.liveness import Liveness
from punchlib.core.timing import TIMING, Timing
from punchlib.errors import StreamBroken, WireMismatch
from punchlib.net import sockets
from punchlib.net.channel import SocketChannel, tune
from punchlib.net.watching import watched
from punchlib.pump.buffers import borrowed
from punchlib.pump.stats import Progress, Stats, Step, Tell, nobody
from punchlib.pump.stream import Question, nothing
from punchlib.pump.turn import Turn

if TYPE_CHECKING:
    from punchlib.pump.fifo import FifoReader, FifoWriter

#: What the receiver says once its FIFO is open.
READY = bytes(128)


async def send_stream_v1(
    sock: socket.socket,
    fifo: FifoReader,
    *,
    upstream_failure: Question = nothing,
    timing: Timing = TIMING,
    tell: Tell = nobody,
) -> Stats:
    """Sends all that comes out of a FIFO to an old peer; arguments and who closes what are as in
    `send_stream`.

    It returns when the peer's machine has everything; whether the peer's FIFO has, v1 cannot say.

    Raises:
        StreamBroken: the connection broke, or what feeds us failed.
        WireMismatch: the peer answered with something else than 128 zeros.
    """
    tune(sock)
    flow = _Flow(tell)
    stats = flow.stats
    with contextlib.closing(SocketChannel(sock)) as channel, _whole_or_reset(sock):
        async with _alive(channel, stats, timing):
            ready = bytes(await channel.read_exactly(len(READY)))
            if ready != READY:
                raise WireMismatch(f"expected 128 zeros of an old (v1) peer, got {ready[:8]!r}…")
            turn = Turn()
            with borrowed() as buffer:
                while size := await fifo.read(buffer):
                    async with channel.frame:
                        await channel.write(buffer[:size])
                    flow.count(size)
                    if turn.over(size):
                        await asyncio.sleep(0)
            if cause := await upstream_failure():
                raise StreamBroken(f"the input is not whole: {cause.reason}", cause=cause)
            sock.shutdown(socket.SHUT_WR)
            pause = 0.002
            while _unsent(sock):
                # The kernel tells nobody when all has been acknowledged.
                await asyncio.sleep(pause)
                pause = min(1.5 * pause, 1.0)
            if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise channel.translate(OSError(code, os.strerror(code)))
    fifo.close()
    return flow.end()


async def receive_stream_v1(
    sock: socket.socket, fifo: FifoWriter, *, timing: Timing = TIMING, tell: Tell = nobody
) -> Stats:
    """Writes all that an old peer sends into a FIFO; who closes what is as in `receive_stream`.

    Raises:
        StreamBroken: the connection broke. A peer that died cleanly cannot be told from an end.
    """
    tune(sock)
    flow = _Flow(tell)
    stats = flow.stats
    with contextlib.closing(SocketChannel(sock)) as channel:
        async with _alive(channel, stats, timing):
            await fifo.opened()
            await channel.write(READY)
            turn = Turn()
            with borrowed() as buffer:
                try:
                    while size := await channel.read_some(buffer):
                        await fifo.write(buffer[:size], flow.count)
                        if turn.over(size):
                            await asyncio.sleep(0)
                except BrokenPipeError:
                    stats.stopped = True  # closing is all that an old peer understands
    fifo.close()
    return flow.end()


class _Flow:
    """How many bytes have moved."""

    def __init__(self, tell: Tell) -> None:
        self.stats = Stats()
        self._progress = Progress(tell)

    def count(self, size: int) -> None:
        """Takes note of `size` more bytes."""
        self.stats.bytes += size
        self._progress.moved(self.stats.bytes)

    def end(self) -> Stats:
        """Takes note of the end; that the peer has everything, this wire does not say."""
        self._progress.tell(Step.LAST_BYTE, self.stats.bytes)
        self.stats.first_byte_at = self._progress.first_byte_at
        return self.stats.end()


@contextlib.contextmanager
def _whole_or_reset(sock: socket.socket) -> Iterator[None]:
    """Whatever fails inside, the peer must not see a FIN, which says that this was everything."""
    try:
        yield
    except BaseException:
        sockets.reset_at_close(sock)
        raise


@contextlib.asynccontextmanager
async def _alive(channel: SocketChannel, stats: Stats, timing: Timing) -> AsyncIterator[None]:
    """Watches TCP's own signs of life, and says at which byte the connection broke."""
    now = asyncio.get_running_loop().time()
    # No word is due from an old peer, ever: its machine's kernel is all there is.
    liveness = Liveness(timing, now, ping=None, silence=math.inf)
    try:
        async with watched(channel, liveness):
            yield
    except StreamBroken as error:
        raise StreamBroken(
            f"{error.message}, at byte {stats.bytes}",
            next_step=error.next_step,
            at_byte=stats.bytes,
            cause=error.cause,
        ) from error


def _unsent(sock: socket.socket) -> int:
    """Bytes that the peer's kernel has not acknowledged (SIOCOUTQ, which is TIOCOUTQ)."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    return int(count)
