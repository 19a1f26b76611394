"""One stream from a FIFO to a FIFO on another machine: whole, or an error at both ends.

The sender ends with END and its total; the receiver answers ACK only when the last byte is in its
FIFO and the FIFO is closed; only then has the sender succeeded, and it says DONE. While a direction
is idle it carries a PING every few seconds, so that silence means death and slowness does not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

from punchlib.core.frames import MAX_DATA, FrameType, Incoming, Outgoing, State, encode_reason
from punchlib.core.timing import TIMING, Timing
from punchlib.errors import PeerSilent, PunchError, StreamBroken
from punchlib.net.channel import Buffer, Channel, SocketChannel
from punchlib.pump.buffers import borrowed
from punchlib.pump.fifo import FifoReader, FifoWriter
from punchlib.pump.liveness import watch_peer
from punchlib.pump.splice import splice_in, splice_out
from punchlib.pump.stats import Stats
from punchlib.pump.turn import Turn
from punchlib.pump.unsent import shared
from punchlib.pump.v1 import receive_stream_v1, send_stream_v1
from punchlib.stopping import doing, stopped

__all__ = ["Stats", "receive_stream", "receive_stream_v1", "send_stream", "send_stream_v1"]

#: Asks what went wrong upstream; None when all is well.
Question: TypeAlias = Callable[[], Awaitable[str | None]]


async def _nothing() -> None:
    """Nobody knows of anything that went wrong."""


async def send_stream(
    channel: Channel,
    fifo: FifoReader,
    *,
    upstream_failure: Question = _nothing,
    timing: Timing = TIMING,
) -> Stats:
    """Sends all that comes out of a FIFO.

    It closes the channel, and after success the FIFO. After a failure the FIFO is the caller's to
    close, so that a failure marker can be there before anybody sees an end of file.

    Args:
        channel: to the verified receiver.
        fifo: the source.
        upstream_failure: asked at the source's end, and may take its time. A stage that died looks
            like a clean end of file; the reason it returns travels to the receiver in place of END.
        timing: waiting times.

    Raises:
        StreamBroken: the receiver has not got everything, or failed; `at_byte` says where.
    """
    sender = _Sender(channel, fifo, upstream_failure)
    with contextlib.closing(channel), _queue(channel):
        async with (
            _both_ends_know(channel, sender.stats, sender.waiting, timing),
            _alive(channel, timing) as tasks,
        ):
            await sender.run(tasks)
        await _bid_farewell(channel, FrameType.DONE, timing.linger)
    return sender.stats.end()


def _queue(channel: Channel) -> contextlib.AbstractContextManager[None]:
    """Bounds what waits in the connection, where there is one."""
    return shared(channel.sock) if isinstance(channel, SocketChannel) else contextlib.nullcontext()


class _Sender:
    """The sending end of one stream."""

    def __init__(self, channel: Channel, fifo: FifoReader, upstream_failure: Question) -> None:
        self.stats = Stats()
        self._channel = channel
        self._fifo = fifo
        self._upstream_failure = upstream_failure
        self._asking: asyncio.Timeout | None = None
        self._stream = Outgoing()

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Sends everything, and takes frames until the receiver has acknowledged it."""
        tasks.create_task(self._speak())
        while self._stream.state is not State.CLOSED:
            frame = await self._channel.receive()
            self._stream.hear(frame.type, frame.payload)
            if frame.type is FrameType.STOP:
                self._stop()

    def waiting(self) -> str:
        """What it does, for people."""
        done = self.stats.bytes
        if self._fifo.fd < 0:
            return f"all {done} bytes were sent, waiting for the peer's ACK"
        if self._asking is not None:
            return f"all {done} bytes were sent, waiting for word of what made them"
        held_up = self._fifo.is_pipe and not self._fifo.is_empty()
        what = "for the peer to take more" if held_up else f"for more from {self._fifo.name}"
        return f"sending, at byte {done}, waiting {what}"

    async def _speak(self) -> None:
        """The FIFO into DATA frames, then END."""
        turn = Turn()
        channel, fifo = self._channel, self._fifo
        spliced = isinstance(channel, SocketChannel) and channel.zero_copy and fifo.is_pipe
        while size := await fifo.available(MAX_DATA):
            if spliced:
                assert isinstance(channel, SocketChannel)
                await splice_out(channel, fifo, size)
            else:
                with borrowed() as buffer:
                    if not (size := await fifo.read(buffer)):
                        break
                    await channel.send(FrameType.DATA, buffer[:size])
            self._stream.total += size
            self.stats.count(size)
            if turn.over(size):
                await asyncio.sleep(0)
        if cause := await self._ask():
            raise StreamBroken(f"the input is not whole: {cause}", cause=cause)
        # Before END: when the receiver said STOP, the stage that feeds us is to know it now.
        fifo.close()
        await channel.send(FrameType.END, self._stream.end())

    async def _ask(self) -> str | None:
        """What went wrong upstream; a receiver that wants no more does not wait for the answer."""
        if self.stats.stopped:
            return None
        try:
            async with asyncio.timeout(None) as self._asking:
                return await self._upstream_failure()
        except TimeoutError:
            if not self.stats.stopped:
                raise
            return None
        finally:
            self._asking = None

    def _stop(self) -> None:
        """The receiver's reader has left."""
        if not self.stats.stopped:
            self.stats.stopped = True
            self._fifo.hang_up()
            if self._asking is not None:
                self._asking.reschedule(0)


async def receive_stream(channel: Channel, fifo: FifoWriter, *, timing: Timing = TIMING) -> Stats:
    """Writes all that the sender sends into a FIFO. Who closes what is as in `send_stream`.

    Raises:
        StreamBroken: not everything came, or it could not be written; `at_byte` says where.
    """
    receiver = _Receiver(channel, fifo, timing)
    with contextlib.closing(channel):
        async with _both_ends_know(channel, receiver.stats, receiver.waiting, timing):
            try:
                async with _alive(channel, timing) as tasks:
                    await receiver.run(tasks)
            except StreamBroken as error:
                raise receiver.explain(error) from error
        await _bid_farewell(channel, None, timing.linger)
    return receiver.stats.end()


class _Receiver:
    """The receiving end of one stream."""

    def __init__(self, channel: Channel, fifo: FifoWriter, timing: Timing) -> None:
        self.stats = Stats()
        self._channel = channel
        self._fifo = fifo
        self._timing = timing
        self._stream = Incoming()
        self._turn = Turn()

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Takes frames until everything is delivered and acknowledged, and the sender knows it."""
        watch = tasks.create_task(self._watch_reader())
        while self._stream.state is State.OPEN:
            await self._take_frame()
        if not self.stats.stopped:
            # An empty stream too must open the FIFO, or its reader waits for ever.
            await self._fifo.opened()
        watch.cancel()
        await asyncio.wait([watch])
        self._fifo.close()
        await self._channel.send(FrameType.ACK, self._stream.acknowledge())
        while self._stream.state is not State.DONE:
            await self._take_frame()

    def waiting(self) -> str:
        """What it does, for people."""
        if self._stream.state is State.CLOSED:
            return f"all {self.stats.bytes} bytes came, waiting for the peer's DONE"
        what = "for the peer to send more"
        if not self._fifo.is_open:
            what = f"for somebody to read {self._fifo.name}"
        elif not self._fifo.has_room():
            what = f"for room in {self._fifo.name}"
        return f"receiving, at byte {self.stats.bytes}, waiting {what}"

    def explain(self, error: StreamBroken) -> StreamBroken:
        """What an error means where it came: after the ACK no byte is missing."""
        if self._stream.state is not State.CLOSED:
            return error
        return type(error)(
            f"everything came, but the sender may not know it: {error.message}",
            reported_by_peer=error.reported_by_peer,
            cause=error.cause,
        )

    async def _take_frame(self) -> None:
        payload: Buffer
        if isinstance(self._channel, SocketChannel):
            kind, size = await self._channel.receive_header()
            if kind is FrameType.DATA:
                self._stream.hear(kind)
                await self._take_data(self._channel, size)
                return
            payload = await self._channel.read_exactly(size)
        else:
            kind, payload = await self._channel.receive()
        self._stream.hear(kind, payload)
        if kind is FrameType.DATA:
            await self._deliver(memoryview(payload))

    async def _take_data(self, channel: SocketChannel, size: int) -> None:
        """Moves the payload of a DATA frame from the connection into the FIFO."""
        before = self._stream.total
        if channel.zero_copy and self._fifo.is_pipe and not self.stats.stopped:
            try:
                await self._fifo.opened()
                await splice_in(channel, self._fifo, size, self._count)
                if self._turn.over(size):
                    await asyncio.sleep(0)
            except BrokenPipeError:
                await self._stop()
        while left := before + size - self._stream.total:
            with borrowed() as buffer:
                filled = await channel.read_ready(buffer[:left])
                await self._deliver(buffer[:filled])

    async def _deliver(self, view: memoryview) -> None:
        """Writes a piece of payload into the FIFO, or drops it when nobody reads any more."""
        total = self._stream.total + len(view)
        if self.stats.stopped:
            self._stream.total = total
            return
        try:
            await self._fifo.opened()
            await self._fifo.write(view, self._count)
        except BrokenPipeError:
            await self._stop()
            self._stream.total = total
        if self._turn.over(len(view)):
            await asyncio.sleep(0)

    def _count(self, size: int) -> None:
        self._stream.total += size
        self.stats.count(size)

    async def _watch_reader(self) -> None:
        """Tells the sender to stop when the FIFO's reader leaves, also while nothing flows."""
        await self._fifo.opened()
        await self._fifo.reader_left()
        await self._stop()

    async def _stop(self) -> None:
        if not self.stats.stopped:
            self.stats.stopped = True
            await self._channel.send(FrameType.STOP)


@contextlib.asynccontextmanager
async def _alive(channel: Channel, timing: Timing) -> AsyncIterator[asyncio.TaskGroup]:
    """Sends PINGs and watches for silence; yields the group for the stream's own tasks."""
    try:
        async with asyncio.TaskGroup() as tasks:
            pulses = [
                tasks.create_task(_ping(channel, timing)),
                tasks.create_task(watch_peer(channel, timing)),
            ]
            yield tasks
            for pulse in pulses:
                pulse.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group.exceptions[0].__cause__


async def _ping(channel: Channel, timing: Timing) -> None:
    loop = asyncio.get_running_loop()
    while True:
        idle = loop.time() - channel.sent_at
        if idle >= timing.ping and not channel.sending:
            await channel.send(FrameType.PING)
        await asyncio.sleep(max(timing.ping - idle, timing.ping / 8))


@contextlib.asynccontextmanager
async def _both_ends_know(
    channel: Channel, stats: Stats, waiting: Callable[[], str], timing: Timing
) -> AsyncIterator[None]:
    """A failure here is told to the peer, and both say at which byte it was.

    Args:
        waiting: what the stream waits for, should somebody stop it.
    """
    try:
        with doing(waiting):
            yield
    except asyncio.CancelledError as stop:
        await _bid_farewell(channel, FrameType.ERROR, timing.goodbye, encode_reason(stopped(stop)))
        raise
    except PunchError as error:
        cause = error.cause if isinstance(error, StreamBroken) else error.message
        if not (isinstance(error, StreamBroken) and error.reported_by_peer):
            patience = timing.linger if isinstance(error, PeerSilent) else timing.last_word
            await _bid_farewell(channel, FrameType.ERROR, patience, encode_reason(cause))
        if not isinstance(error, StreamBroken):
            raise
        raise StreamBroken(
            f"{error.message}, at byte {stats.bytes}",
            next_step=error.next_step,
            at_byte=stats.bytes,
            reported_by_peer=error.reported_by_peer,
            cause=error.cause,
        ) from error


async def _bid_farewell(
    channel: Channel, kind: FrameType | None, patience: float, payload: bytes = b""
) -> None:
    """The last word, if there is one, and time for it to arrive; what fails here no longer counts.

    Closing with bytes unread would make TCP throw the last word away.
    """
    with contextlib.suppress(PunchError, TimeoutError):
        async with asyncio.timeout(patience):
            if kind is not None:
                await channel.send(kind, payload)
            await channel.finish()
