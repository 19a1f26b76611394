"""Streams for other programs: `async with punchlib.connect(key) as stream:`, and a blocking twin.

Two programs that know the same key and can reach the same rendezvous get a stream from one to the
other, by the same routes, with the same guarantees and through the same code as `pashlib`: between
the program and the pump lies a pipe, as a FIFO lies between a script's stage and `pashlib`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Self

from punchlib import wiring
from punchlib.config import Config
from punchlib.core.events import Event
from punchlib.errors import Cause, PunchError, StreamBroken, UsageError, WireMismatch
from punchlib.net.connection import Connection, Spec
from punchlib.net.readiness import Readiness
from punchlib.pump import ends
from punchlib.pump.fifo import FifoReader, FifoWriter
from punchlib.pump.stats import Stats
from punchlib.rendezvous.store import RendezvousStore

#: Bytes that one `receive` returns at the most.
CHUNK = 1 << 18


class Stream:
    """One end of a connected stream. The end with the smaller label sends.

    Attributes:
        sending: this end sends.
        route: "host", "punched" or "s3".
        local, remote: both addresses as this machine sees them; "-" over S3.
        attempt: the attempt that made the connection, from 1.
        setup_ms: from when both ends were registered to verified, in milliseconds.
    """

    def __init__(self, connection: Connection, spec: Spec) -> None:
        if connection.channel is None:
            raise WireMismatch(
                f"{spec}: the peer is an old (v1) pashlib, which cannot acknowledge",
                next_step="use `pashlib` with such a peer, or upgrade it",
            )
        self.sending = spec.sending
        self.route = str(connection.route)
        self.local, self.remote = connection.local, connection.remote
        self.attempt, self.setup_ms = connection.attempt, connection.setup_ms
        self._failure: Cause | None = None
        self._keeper = -1
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.sending:
            self._fd = writer
            source = FifoReader("the program's data", reader)
            work = ends.send(connection, source, upstream_failure=self._given_up)
            self._end: FifoReader | FifoWriter = source
        else:
            self._fd = reader
            sink = FifoWriter.open_path(f"/proc/self/fd/{writer}", name="the program")
            # Kept until the pump has ended: a pipe without a writer reads as ended.
            self._keeper = writer
            work = ends.receive(connection, sink)
            self._end = sink
        self._ready = Readiness(self._fd)
        self._pump = asyncio.ensure_future(self._run(work))

    async def _given_up(self) -> Cause | None:
        return self._failure

    async def _run(self, work: object) -> Stats:
        try:
            return await work  # type: ignore[misc,no-any-return]
        finally:
            self._end.close()
            if self._keeper >= 0:
                os.close(self._keeper)

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Sends all of `data`; waits while the other end does not keep up.

        Raises:
            StreamBroken: the stream broke, or the receiver left before the end.
            UsageError: this is the receiving end.
        """
        if not self.sending:
            raise UsageError("the end with the larger label receives", next_step="swap the labels")
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._ready.writable()
            except BrokenPipeError:
                await asyncio.shield(self._pump)
                raise StreamBroken("the receiver left before the end of the stream") from None

    async def receive(self, most: int = CHUNK) -> bytes:
        """The next bytes, at most `most`; b"" at the end, which is the whole stream's end.

        Raises:
            StreamBroken: the stream broke; what came before is not the whole.
            UsageError: this is the sending end.
        """
        if self.sending:
            raise UsageError("the end with the smaller label sends", next_step="swap the labels")
        while True:
            try:
                data = os.read(self._fd, most)
            except BlockingIOError:
                await self._ready.readable()
                continue
            if not data:
                # An end of file is only the stream's end when the pump says so.
                await asyncio.shield(self._pump)
            return data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        while data := await self.receive():
            yield data

    async def close(self, failure: str | None = None) -> None:
        """Ends the stream: the sender's data has arrived and is acknowledged when this returns.

        Args:
            failure: the sender gives up for this reason, which the receiver is told: its stream
                breaks instead of ending.

        Raises:
            StreamBroken: not everything has arrived.
        """
        self._failure = Cause(failure) if failure else None
        self._close_pipe()
        try:
            await asyncio.shield(self._pump)
        except asyncio.CancelledError:
            await self._abandon()
            raise
        except PunchError:
            if failure is None:
                raise

    def _close_pipe(self) -> None:
        if self._fd >= 0:
            self._ready.close()
            os.close(self._fd)
            self._fd = -1

    async def _abandon(self) -> None:
        # The pump may read the pipe's end before the cancellation reaches it: that is no END.
        self._failure = self._failure or Cause("the sender was stopped")
        self._close_pipe()
        self._pump.cancel()
        await asyncio.gather(self._pump, return_exceptions=True)


@contextlib.asynccontextmanager
async def connect(
    key: str,
    me: int | str = 0,
    peer: int | str = 1,
    *,
    config: Config | None = None,
    store: RendezvousStore | None = None,
    report: Callable[[Event], None] = lambda event: None,
) -> AsyncIterator[Stream]:
    """Connects to the other end; the stream is whole and acknowledged when the block ends.

    Args:
        key: what both ends know.
        me, peer: the labels of this end and the other. The smaller one sends.
        config: by default what the environment says (`Config.from_env`).
        store: the rendezvous; DynamoDB by default.
        report: is told what happens on the way (`punchlib.core.events`).

    Raises:
        PunchError: see `punchlib.errors`.
    """
    spec = Spec(key, str(me), str(peer), sending=str(me) < str(peer))
    if spec.me == spec.peer:
        raise UsageError(f"both ends have the label {spec.me!r}", next_step="give them two labels")
    connector = wiring.open_connector(config or Config.from_env(), store=store, report=report)
    try:
        async with await connector.establish(spec) as connection:
            stream = Stream(connection, spec)
            try:
                yield stream
            except asyncio.CancelledError:
                await stream._abandon()
                raise
            except BaseException as exc:
                await stream.close(failure=f"the sender failed: {type(exc).__name__}: {exc}")
                raise
            else:
                await stream.close()
    finally:
        await connector.close()


class BlockingStream:
    """The same for programs without a loop: every call waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stream: Stream) -> None:
        self._loop = loop
        self._stream = stream
        self.sending, self.route = stream.sending, stream.route
        self.local, self.remote = stream.local, stream.remote
        self.attempt, self.setup_ms = stream.attempt, stream.setup_ms

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """See `Stream.send`."""
        asyncio.run_coroutine_threadsafe(self._stream.send(data), self._loop).result()

    def receive(self, most: int = CHUNK) -> bytes:
        """See `Stream.receive`."""
        return asyncio.run_coroutine_threadsafe(self._stream.receive(most), self._loop).result()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        data = self.receive()
        if not data:
            raise StopIteration
        return data


@contextlib.contextmanager
def connect_blocking(
    key: str,
    me: int | str = 0,
    peer: int | str = 1,
    *,
    config: Config | None = None,
    store: RendezvousStore | None = None,
) -> Iterator[BlockingStream]:
    """`connect` without a loop of your own: one runs in a thread while the block lasts."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=f"punchlib {key}", daemon=True)
    thread.start()
    try:
        context = connect(key, me, peer, config=config, store=store)
        stream = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result()
        try:
            yield BlockingStream(loop, stream)
        except BaseException as exc:
            leaving = context.__aexit__(type(exc), exc, exc.__traceback__)
            asyncio.run_coroutine_threadsafe(leaving, loop).result()
            raise
        else:
            leaving = context.__aexit__(None, None, None)
            asyncio.run_coroutine_threadsafe(leaving, loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
