"""One stream from a FIFO to a FIFO on another machine: whole, or an error at both ends.

The sender ends with END and its total; the receiver answers ACK only when the last byte is in its
FIFO and the FIFO is closed; the sender has then succeeded, and says DONE. What an end's status says
is decided by what it knows: a sender that has the ACK succeeded; a receiver that has said ACK has
the right bytes, whether DONE comes or not. `core.liveness` tells a dead peer from a slow one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

from punchlib.core.frames import MAX_DATA, FrameType, Incoming, Outgoing, State, encode_cause
from punchlib.core.liveness import Liveness
from punchlib.core.timing import TIMING, Timing
from punchlib.errors import Cause, PeerSilent, PunchError, StreamBroken
from punchlib.net.channel import Channel
from punchlib.net.watching import watched
from punchlib.pump.buffers import borrowed
from punchlib.pump.fifo import FifoReader, FifoWriter
from punchlib.pump.splice import splice_in, splice_out
from punchlib.pump.stats import Progress, Stats, Step, Tell, nobody
from punchlib.pump.turn import Turn
from punchlib.pump.unsent import shared
from punchlib.stopping import doing, stopped

__all__ = ["Question", "Stats", "receive_stream", "send_stream"]

#: Asks what went wrong upstream; None when all is well.
Question: TypeAlias = Callable[[], Awaitable[Cause | None]]


async def nothing() -> None:
    """Nobody knows of anything that went wrong."""


async def send_stream(
    channel: Channel,
    fifo: FifoReader,
    *,
    upstream_failure: Question = nothing,
    timing: Timing = TIMING,
    node: str = "",
    tell: Tell = nobody,
) -> Stats:
    """Sends all that comes out of a FIFO.

    It closes the channel, and after success the FIFO. After a failure the FIFO is the caller's to
    close, so that a failure marker can be there before anybody sees an end of file.

    Args:
        channel: to the verified receiver.
        fifo: the source.
        upstream_failure: asked at the source's end, and may take its time. A stage that died looks
            like a clean end of file; the cause it returns travels to the receiver in place of END.
        timing: waiting times.
        node: our name, for the peer to say who failed; "" where we have none.
        tell: is told how far it is.

    Raises:
        StreamBroken: the receiver has not got everything, or failed; `at_byte` says where.
    """
    sender = _Sender(channel, fifo, upstream_failure, tell)
    queue = shared(channel.sock) if channel.sock is not None else contextlib.nullcontext()
    with contextlib.closing(channel), queue:
        async with _both_ends_know(sender, timing, node), _alive(sender, timing) as tasks:
            await sender.run(tasks)
        tell(Step.ACKNOWLEDGED, sender.moved)
        sender.stream.say(FrameType.DONE)
        await _bid_farewell(channel, FrameType.DONE, timing.linger)
    return sender.stats()


async def receive_stream(
    channel: Channel,
    fifo: FifoWriter,
    *,
    timing: Timing = TIMING,
    node: str = "",
    tell: Tell = nobody,
) -> Stats:
    """Writes all that the sender sends into a FIFO. Who closes what is as in `send_stream`.

    Raises:
        StreamBroken: not everything came, or it could not be written; `at_byte` says where.
    """
    receiver = _Receiver(channel, fifo, tell)
    with contextlib.closing(channel):
        async with _both_ends_know(receiver, timing, node), _alive(receiver, timing) as tasks:
            await receiver.run(tasks)
        tell(Step.ACKNOWLEDGED, receiver.moved)
        note = await receiver.part(timing.linger)
    return receiver.stats(note)


class _End:
    """What both ends have in common.

    Attributes:
        channel: to the peer.
        stream: what was said and heard, and how many bytes moved.
    """

    stream: Outgoing | Incoming

    def __init__(self, channel: Channel, tell: Tell) -> None:
        self.channel = channel
        self._progress = Progress(tell)
        self._turn = Turn()

    @property
    def moved(self) -> int:
        """Payload bytes sent, or delivered into the FIFO."""
        return self.stream.total

    def waiting(self) -> str:
        """What it does, for people."""
        raise NotImplementedError

    def explain(self, error: PunchError) -> PunchError:
        """What an error means where it came."""
        return error

    async def say(self, kind: FrameType) -> None:
        """Sends a frame whose payload the conversation makes."""
        await self.channel.send(kind, self.stream.say(kind))

    async def ping(self) -> None:
        """Says that we live, where there is still something to come."""
        if self.stream.may_say(FrameType.PING):
            await self.say(FrameType.PING)

    def count(self, size: int) -> None:
        """Takes note of `size` more bytes of payload."""
        self.stream.total += size
        self._progress.moved(self.moved)

    def stats(self, note: str = "") -> Stats:
        """How it went."""
        first = self._progress.first_byte_at
        return Stats(self.moved, first, stopped=self.stream.stopped, note=note).end()


class _Sender(_End):
    """The sending end of one stream."""

    def __init__(
        self, channel: Channel, fifo: FifoReader, upstream_failure: Question, tell: Tell
    ) -> None:
        super().__init__(channel, tell)
        self.stream: Outgoing = Outgoing()
        self._fifo = fifo
        self._upstream_failure = upstream_failure
        self._asking: asyncio.Timeout | None = None

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Sends everything, and takes frames until the receiver has acknowledged it."""
        tasks.create_task(self._speak())
        while self.stream.state is not State.CLOSED:
            frame = await self.channel.receive()
            self.stream.hear(frame.type, frame.payload)
            if frame.type is FrameType.STOP:
                self._fifo.hang_up()
                if self._asking is not None:
                    self._asking.reschedule(0)
                    self._asking = None

    def waiting(self) -> str:
        done = self.moved
        if self._fifo.fd < 0:
            return f"all {done} bytes were sent, waiting for the peer's ACK"
        if self._asking is not None:
            return f"all {done} bytes were sent, waiting for word of what made them"
        held_up = self._fifo.is_pipe and not self._fifo.is_empty()
        what = "for the peer to take more" if held_up else f"for more from {self._fifo.name}"
        return f"sending, at byte {done}, waiting {what}"

    async def _speak(self) -> None:
        """The FIFO into DATA frames, then END."""
        channel, fifo, stream = self.channel, self._fifo, self.stream
        splices = channel.splices if fifo.is_pipe else None
        while size := await fifo.available(MAX_DATA):
            stream.say(FrameType.DATA)
            if splices is not None:
                await splice_out(splices, fifo, size)
            else:
                with borrowed() as buffer:
                    if not (size := await fifo.read(buffer)):
                        break
                    await channel.send(FrameType.DATA, buffer[:size])
            self.count(size)
            if self._turn.over(size):
                await asyncio.sleep(0)
        if cause := await self._ask():
            raise StreamBroken(f"the input is not whole: {cause.reason}", cause=cause)
        # Before END: when the receiver said STOP, the stage that feeds us is to know it now.
        fifo.close()
        self._progress.tell(Step.LAST_BYTE, self.moved)
        await self.say(FrameType.END)

    async def _ask(self) -> Cause | None:
        """What went wrong upstream; a receiver that wants no more does not wait for the answer."""
        if self.stream.stopped:
            return None
        try:
            async with asyncio.timeout(None) as self._asking:
                return await self._upstream_failure()
        except TimeoutError:
            if not self.stream.stopped:
                raise
            return None
        finally:
            self._asking = None


class _Receiver(_End):
    """The receiving end of one stream."""

    def __init__(self, channel: Channel, fifo: FifoWriter, tell: Tell) -> None:
        super().__init__(channel, tell)
        self.stream: Incoming = Incoming()
        self._fifo = fifo

    @property
    def moved(self) -> int:
        return self.stream.delivered

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Takes frames until everything is delivered and acknowledged."""
        watch = tasks.create_task(self._watch_reader())
        while self.stream.state is State.OPEN:
            await self._take_frame()
        if not self.stream.stopped:
            # An empty stream too must open the FIFO, or its reader waits for ever.
            await self._fifo.opened()
        watch.cancel()
        await asyncio.wait([watch])
        self._fifo.close()
        self._progress.tell(Step.LAST_BYTE, self.moved)
        while self.channel.has_more():
            await self._take_frame()  # a sender that has given up meanwhile is told nothing
        await self.say(FrameType.ACK)
        await self.channel.flush()

    async def part(self, patience: float) -> str:
        """Waits for the sender to have heard the ACK; it cannot change any more how we fared.

        Returns:
            What came in place of its DONE, for people; "" when all is as it should be.
        """
        what = f"no DONE within {patience:g} s"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                try:
                    while self.stream.state is not State.DONE:
                        await self._take_frame()
                    what = ""
                except PunchError as error:
                    what = error.message
                with contextlib.suppress(PunchError):
                    await self.channel.finish()
        return what and f"everything came, but the sender may not know it: {what}"

    def waiting(self) -> str:
        if self.stream.state is State.CLOSED:
            return f"all {self.moved} bytes came, sending the ACK"
        what = "for the peer to send more"
        if not self._fifo.is_open:
            what = f"for somebody to read {self._fifo.name}"
        elif not self._fifo.has_room():
            what = f"for room in {self._fifo.name}"
        return f"receiving, at byte {self.moved}, waiting {what}"

    def explain(self, error: PunchError) -> PunchError:
        if self.stream.state is State.CLOSED:
            error.message = f"everything came, but the sender does not know it: {error.message}"
        return error

    async def _take_frame(self) -> None:
        kind, size = await self.channel.receive_header()
        if kind is FrameType.DATA:
            self.stream.hear(kind)
            await self._take_data(size)
        else:
            self.stream.hear(kind, await self.channel.read_exactly(size))

    async def _take_data(self, size: int) -> None:
        """Moves the payload of a DATA frame from the connection into the FIFO."""
        end = self.stream.total + size
        splices = self.channel.splices
        if splices is not None and self._fifo.is_pipe and not self.stream.stopped:
            try:
                await self._fifo.opened()
                await splice_in(splices, self._fifo, size, self.count)
                if self._turn.over(size):
                    await asyncio.sleep(0)
            except BrokenPipeError:
                await self._stop()
        while left := end - self.stream.total:
            with borrowed() as buffer:
                filled = await self.channel.read_ready(buffer[:left])
                await self._deliver(buffer[:filled])

    async def _deliver(self, view: memoryview) -> None:
        """Writes a piece of payload into the FIFO, or drops it when nobody reads any more."""
        end = self.stream.total + len(view)
        if not self.stream.stopped:
            try:
                await self._fifo.opened()
                await self._fifo.write(view, self.count)
            except BrokenPipeError:
                await self._stop()
        self.stream.dropped += end - self.stream.total
        self.stream.total = end
        if self._turn.over(len(view)):
            await asyncio.sleep(0)

    async def _watch_reader(self) -> None:
        """Tells the sender to stop when the FIFO's reader leaves, also while nothing flows."""
        await self._fifo.opened()
        await self._fifo.reader_left()
        await self._stop()

    async def _stop(self) -> None:
        if not self.stream.stopped:
            await self.say(FrameType.STOP)


def _alive(end: _End, timing: Timing) -> contextlib.AbstractAsyncContextManager[asyncio.TaskGroup]:
    """Both ends must live inside; yields the group for the stream's own tasks."""
    now = asyncio.get_running_loop().time()
    ping, idle = timing.ping, timing.idle_ping
    if not end.channel.patient:
        ping = idle = timing.hasty_ping
    return watched(end.channel, Liveness(timing, now, ping=ping, idle_ping=idle), end.ping)


@contextlib.asynccontextmanager
async def _both_ends_know(end: _End, timing: Timing, node: str) -> AsyncIterator[None]:
    """A failure here is told to the peer, and both say at which byte it was."""
    channel = end.channel
    try:
        with doing(end.waiting):
            yield
    except asyncio.CancelledError as stop:
        said = encode_cause(Cause(stopped(stop), node))
        await _bid_farewell(channel, FrameType.ERROR, timing.goodbye, said)
        raise
    except PunchError as error:
        if not (isinstance(error, StreamBroken) and error.reported_by_peer):
            said = encode_cause(error.cause.said_by(node))
            patience = timing.goodbye if isinstance(error, PeerSilent) else timing.last_word
            await _bid_farewell(channel, FrameType.ERROR, patience, said)
        error = end.explain(error)
        if not isinstance(error, StreamBroken):
            raise
        raise StreamBroken(
            f"{error.message}, at byte {end.moved}",
            next_step=error.next_step,
            at_byte=end.moved,
            reported_by_peer=error.reported_by_peer,
            cause=error.cause,
        ) from error


async def _bid_farewell(
    channel: Channel, kind: FrameType, patience: float, payload: bytes = b""
) -> None:
    """The last word, and time for it to arrive; what fails here no longer counts.

    Closing with bytes unread would make TCP throw the last word away.
    """
    with contextlib.suppress(PunchError, TimeoutError):
        async with asyncio.timeout(patience):
            await channel.send(kind, payload)
            await channel.finish()
