"""The route that needs no reachability: a stream's frames as numbered objects in the bucket.

Both directions are series of objects under one prefix, which names the two sides of the attempt:

    punch-streams/KEY/SENDERSIDE-RECEIVERSIDE/s/000000000000   frames from the sender
    punch-streams/KEY/SENDERSIDE-RECEIVERSIDE/r/000000000000   frames from the receiver

An object holds whole frames one after the other, sealed (`core.sealing`). Whoever reads an object
deletes it, and the writer stays at most `WINDOW` objects ahead of the reader, so neither memory nor
the bucket fills.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import quote

from punchlib.aws import errors
from punchlib.config import Config
from punchlib.core.frames import (
    HEADER_SIZE,
    MAX_DATA,
    FrameHeader,
    FrameType,
    decode_header,
    encode_header,
)
from punchlib.core.handshake import Terms
from punchlib.core.liveness import Signs
from punchlib.core.sealing import Sealer
from punchlib.core.timing import TIMING, Timing
from punchlib.errors import PunchError, StorageError, StreamBroken
from punchlib.net.channel import Buffer, Frame, SocketChannel
from punchlib.rendezvous.watcher import pause_after

#: Where the objects lie; `punch run` sweeps what a killed node leaves under its job.
PREFIX = "punch-streams/"
#: Bytes: an object is sent when it is this large, or when the one before is on its way.
OBJECT_SIZE = 8 << 20
#: Bytes that an object can have, sealed. A larger one is not ours, and may not fill our memory.
MAX_OBJECT = OBJECT_SIZE + 2 * MAX_DATA
#: Objects that may wait for the reader.
WINDOW = 4
THREADS = 16

T = TypeVar("T")


class Looks:
    """The pauses between looks into the bucket: ever longer, the longer nothing new has come.

    What comes after minutes is noticed some hundredth of them later, and what comes soon at once.
    """

    def __init__(self, timing: Timing, now: float) -> None:
        self._timing = timing
        self.begin(now)

    def begin(self, now: float) -> None:
        """Something has come: more may follow soon."""
        self._since, self._pause = now, self._timing.object_look_least

    def pause(self, now: float) -> float:
        """Seconds until the next look."""
        pause = self._pause
        longest = max(self._timing.object_look_most, pause_after(now - self._since))
        self._pause = min(pause * 1.5, longest)
        return pause


class S3Route:
    """Opens channels through the bucket; one for all connections of a process."""

    def __init__(
        self, config: Config, make_client: Callable[[], Any], *, timing: Timing = TIMING
    ) -> None:
        self.bucket = config.bucket or ""
        self.timing = timing.patient(config.stall_timeout)
        self._make_client = make_client
        self._client: Any = None
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="s3route")

    async def open(self, terms: Terms) -> S3Channel:
        """A channel to the peer; waits until the peer is there too.

        Raises:
            StorageError: the bucket refuses.
            StreamBroken: somebody else writes in the peer's place.
        """
        channel = S3Channel(self, terms)
        try:
            await channel.send(FrameType.PING)
            await channel.wait_for_peer()
        except BaseException:
            await channel.withdraw()
            raise
        return channel

    async def call(self, operation: str, **request: Any) -> dict[str, Any] | None:
        """One S3 call; None when the object is not there.

        Raises:
            StorageError: S3 refuses, or keeps failing.
        """
        give_up = time.monotonic() + self.timing.object_retry
        while True:
            try:
                return await self.in_thread(self._call, operation, request)
            except Exception as error:
                if errors.is_code(error, "NoSuchKey", "404"):
                    return None
                what = f"S3 route: {operation} in bucket {self.bucket} failed"
                if not errors.is_transient(error) or time.monotonic() > give_up:
                    ours = errors.translate(error, what)
                    if ours is None:
                        raise
                    if errors.is_code(error, "AccessDenied", "403"):
                        ours.next_step = (
                            "allow s3:GetObject, PutObject and DeleteObject on "
                            f"{PREFIX}* of the bucket that AWS_BUCKET names"
                        )
                    raise ours from error
            await asyncio.sleep(self.timing.object_look_most)

    async def in_thread(self, work: Callable[..., T], *args: Any) -> T:
        """What takes its time, beside the loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, functools.partial(work, *args))

    def _call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        if self._client is None:
            self._client = self._make_client()
        answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self.bucket, **request)
        if "Body" in answer:
            with answer["Body"] as body:
                fits = answer["ContentLength"] <= MAX_OBJECT
                answer["Body"] = body.read() if fits else None
        return answer


class S3Channel:
    """See `Channel`. A peer of the first release does not seal: there the bucket's IAM alone says
    who may take part.
    """

    sock: socket.socket | None = None
    splices: SocketChannel | None = None

    def __init__(self, route: S3Route, terms: Terms) -> None:
        self._prefix = f"{PREFIX}{quote(terms.key)}/{'-'.join(terms.sides)}/"
        out, incoming = ("s", "r") if terms.sending else ("r", "s")
        self._out, self._in = f"{self._prefix}{out}/", f"{self._prefix}{incoming}/"
        self.patient = terms.revision > 0
        self._sealing = (
            (Sealer(terms, outgoing=True), Sealer(terms, outgoing=False)) if self.patient else None
        )
        self._route = route
        self._timing = route.timing
        self._loop = asyncio.get_running_loop()
        self.description = f"s3://{route.bucket}/{self._prefix}"
        self._waiting_since: float | None = None
        self._sent_at = self._loop.time()
        self._looks = Looks(self._timing, self._sent_at)
        self._outgoing = bytearray()
        self._room = asyncio.Event()
        self._room.set()
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._trouble: PunchError | None = None
        self._written = 0
        self._read = 0
        self._incoming = memoryview(b"")
        self._deleting: set[asyncio.Task[Any]] = set()
        self._uploader = self._loop.create_task(self._upload())

    def signs_of_life(self) -> Signs:
        now, since = self._loop.time(), self._waiting_since
        return Signs(
            sent=now - self._sent_at,
            sending=bool(self._outgoing),
            waiting=None if since is None else now - since,
        )

    async def send(self, kind: FrameType, payload: Buffer = b"") -> None:
        while not self._room.is_set() and self._trouble is None:
            await self._room.wait()
        if self._trouble is not None:
            raise self._trouble
        self._outgoing += encode_header(kind, len(payload))
        self._outgoing += payload
        self._idle.clear()
        self._more.set()
        if len(self._outgoing) >= OBJECT_SIZE:
            self._room.clear()
        self._sent_at = self._loop.time()

    async def receive(self) -> Frame:
        header = await self.receive_header()
        return Frame(header.type, await self.read_exactly(header.size))

    async def receive_header(self) -> FrameHeader:
        while not self._incoming:
            await self.wait_for_peer()
        header = decode_header(await self.read_exactly(HEADER_SIZE))
        if header.type is not FrameType.PING:  # which says that it lives, and that nothing is new
            self._looks.begin(self._loop.time())
        return header

    def has_more(self) -> bool:
        return bool(self._incoming)

    async def read_exactly(self, size: int) -> Buffer:
        if len(self._incoming) < size:
            raise StreamBroken("the S3 route: an object ends in the middle of a frame")
        data, self._incoming = self._incoming[:size], self._incoming[size:]
        return data

    async def read_ready(self, view: memoryview) -> int:
        data = await self.read_exactly(min(len(view), len(self._incoming) or 1))
        view[: len(data)] = data
        return len(data)

    async def wait_for_peer(self) -> None:
        """Waits for the peer's next object and takes it out of the bucket."""
        name = f"{self._in}{self._read:012d}"
        self._waiting_since = self._loop.time()
        try:
            while (answer := await self._route.call("get_object", Key=name)) is None:
                if self._trouble is not None:
                    raise self._trouble
                await asyncio.sleep(self._looks.pause(self._loop.time()))
        finally:
            self._waiting_since = None
        body: bytes | None = answer["Body"]
        if body is None:
            raise StreamBroken(f"the S3 route: {name} is larger than any object of a stream")
        if self._sealing is None:
            self._incoming = memoryview(body)
        else:
            opened = self._route.in_thread(self._sealing[1].open, self._read, body)
            self._incoming = await opened
        self._read += 1
        self._delete(name)

    async def flush(self) -> None:
        # What fills the window leaves when the peer takes it: its silence counts here, too.
        before, self._waiting_since = self._waiting_since, self._loop.time()
        try:
            await self._idle.wait()
        finally:
            self._waiting_since = before
        if self._trouble is not None:
            raise self._trouble

    async def finish(self) -> None:
        """Waits until all is uploaded and the peer has taken it."""
        await self.flush()
        await asyncio.gather(*self._deleting, return_exceptions=True)
        await self._wait_until_taken(self._written - 1)

    def close(self) -> None:
        self._uploader.cancel()

    async def withdraw(self) -> None:
        """Takes back what nobody will read, when the peer never came this way."""
        self.close()
        # For a while: somebody may be stopping us, and `punch run` sweeps what stays.
        with contextlib.suppress(TimeoutError, StorageError):
            async with asyncio.timeout(self._timing.object_withdrawal):
                await asyncio.gather(self._uploader, *self._deleting, return_exceptions=True)
                for n in range(self._written):
                    await self._route.call("delete_object", Key=f"{self._out}{n:012d}")

    async def _upload(self) -> None:
        try:
            while True:
                await self._more.wait()
                self._more.clear()
                body, self._outgoing = bytes(self._outgoing), bytearray()
                self._room.set()
                if self._written >= WINDOW:
                    await self._wait_until_taken(self._written - WINDOW)
                if self._sealing is not None:
                    sealed = self._route.in_thread(self._sealing[0].seal, self._written, body)
                    body = await sealed
                name = f"{self._out}{self._written:012d}"
                await self._route.call("put_object", Key=name, Body=body)
                self._written += 1
                if not self._outgoing:
                    self._idle.set()
        except Exception as exc:
            # Whatever it was: whoever sends or flushes would wait for us for ever.
            self._trouble = exc if isinstance(exc, PunchError) else _unforeseen(exc)
            self._room.set()
            self._idle.set()

    async def _wait_until_taken(self, number: int) -> None:
        name = f"{self._out}{number:012d}"
        looks = Looks(self._timing, self._loop.time())
        while number >= 0 and await self._route.call("head_object", Key=name) is not None:
            await asyncio.sleep(looks.pause(self._loop.time()))

    def _delete(self, name: str) -> None:
        task = self._loop.create_task(self._route.call("delete_object", Key=name))
        self._deleting.add(task)
        task.add_done_callback(self._deleting.discard)


def _unforeseen(error: Exception) -> StorageError:
    ours = StorageError(f"S3 route: cannot upload: {type(error).__name__}: {error}")
    ours.__cause__ = error
    return ours
