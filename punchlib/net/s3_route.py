"""The route that needs no reachability: a stream's frames as numbered objects in the bucket.

Both directions are series of objects under one prefix, which names the two sides of the attempt:

    punch-streams/KEY/SENDERSIDE-RECEIVERSIDE/s/000000000000   frames from the sender
    punch-streams/KEY/SENDERSIDE-RECEIVERSIDE/r/000000000000   frames from the receiver

An object holds whole frames one after the other. Whoever reads an object deletes it, and the
writer stays at most `WINDOW` objects ahead of the reader, so neither memory nor the bucket fills.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError

from punchlib.config import Config
from punchlib.core.frames import HEADER_SIZE, FrameType, decode_header, encode_header
from punchlib.core.handshake import Terms
from punchlib.errors import StorageError, StreamBroken
from punchlib.net.channel import Buffer, Frame

#: Where the objects lie; `punch run` sweeps what a killed node leaves under its job.
PREFIX = "punch-streams/"
#: Bytes: an object is sent when it is this large, or when the one before is on its way.
OBJECT_SIZE = 8 << 20
#: Objects that may wait for the reader.
WINDOW = 4
#: Seconds between looks for the next object; from the first to the last, growing while idle.
POLL_LEAST, POLL_MOST = 0.05, 0.5
#: Seconds that the last object may wait for its reader when the stream ends.
LINGER = 5.0
#: Seconds for taking back what nobody will read.
WITHDRAW_TIME = 1.5
#: Seconds for which a failing S3 is tried again, on top of what boto3 does itself.
PATIENCE = 8.0
THREADS = 16


class S3Route:
    """Opens channels through the bucket; one for all connections of a process."""

    def __init__(self, config: Config, make_client: Callable[[], Any]) -> None:
        self.bucket = config.bucket or ""
        self._make_client = make_client
        self._client: Any = None
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="s3route")

    async def open(self, terms: Terms) -> S3Channel:
        """A channel to the peer; waits until the peer is there too.

        Raises:
            StorageError: the bucket refuses.
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
        loop = asyncio.get_running_loop()
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                return await loop.run_in_executor(
                    self._pool, functools.partial(self._call, operation, request)
                )
            except ClientError as exc:
                error = exc.response.get("Error", {})
                status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if error.get("Code") in ("NoSuchKey", "404"):
                    return None
                problem, refused = f"{error.get('Code')}: {error.get('Message')}", status < 500
            except BotoCoreError as exc:
                problem, refused = str(exc), False
            if refused or time.monotonic() > give_up:
                raise StorageError(
                    f"S3 route: {operation} in bucket {self.bucket} failed: {problem}",
                    next_step="allow s3:GetObject, PutObject and DeleteObject on "
                    f"{PREFIX}* of the bucket that AWS_BUCKET names",
                )
            await asyncio.sleep(POLL_MOST)

    def _call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        if self._client is None:
            self._client = self._make_client()
        answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self.bucket, **request)
        if "Body" in answer:
            answer["Body"] = answer["Body"].read()
        return answer


class S3Channel:
    """See `Channel`. The bucket's IAM says who may take part: nothing here is encrypted by us."""

    def __init__(self, route: S3Route, terms: Terms) -> None:
        sides = (terms.my_side, terms.peer_side)
        first, second = sides if terms.sending else sides[::-1]
        self._prefix = f"{PREFIX}{quote(terms.key)}/{first}-{second}/"
        out, incoming = ("s", "r") if terms.sending else ("r", "s")
        self._out, self._in = f"{self._prefix}{out}/", f"{self._prefix}{incoming}/"
        self._route = route
        self._loop = asyncio.get_running_loop()
        self.description = f"s3://{route.bucket}/{self._prefix}"
        self.waiting_since: float | None = None
        self.sent_at = self._loop.time()
        self._outgoing = bytearray()
        self._room = asyncio.Event()
        self._room.set()
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._trouble: Exception | None = None
        self._written = 0
        self._read = 0
        self._incoming = memoryview(b"")
        self._deleting: set[asyncio.Task[Any]] = set()
        self._uploader = self._loop.create_task(self._upload())

    @property
    def sending(self) -> bool:
        return bool(self._outgoing)

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
        self.sent_at = self._loop.time()

    async def receive(self) -> Frame:
        if not self._incoming:
            await self.wait_for_peer()
        view = self._incoming
        if len(view) < HEADER_SIZE:
            raise StreamBroken("the S3 route: an object ends in the middle of a frame's header")
        header = decode_header(view[:HEADER_SIZE])
        if len(view) < HEADER_SIZE + header.size:
            raise StreamBroken("the S3 route: an object ends in the middle of a frame")
        self._incoming = view[HEADER_SIZE + header.size :]
        return Frame(header.type, view[HEADER_SIZE : HEADER_SIZE + header.size])

    async def wait_for_peer(self) -> None:
        """Waits for the peer's next object and takes it out of the bucket."""
        name = f"{self._in}{self._read:012d}"
        pause = POLL_LEAST
        self.waiting_since = self._loop.time()
        try:
            while (answer := await self._route.call("get_object", Key=name)) is None:
                if self._trouble is not None:
                    raise self._trouble
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, POLL_MOST)
        finally:
            self.waiting_since = None
        self._read += 1
        self._incoming = memoryview(answer["Body"])
        self._delete(name)

    async def finish(self) -> None:
        """Waits until all is uploaded and the peer has taken it."""
        await self._idle.wait()
        if self._trouble is not None:
            raise self._trouble
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                await self._wait_until_taken(self._written - 1)
        await asyncio.gather(*self._deleting, return_exceptions=True)

    def close(self) -> None:
        self._uploader.cancel()

    async def withdraw(self) -> None:
        """Takes back what nobody will read, when the peer never came this way."""
        self.close()
        # For a while: somebody may be stopping us, and `punch run` sweeps what stays.
        with contextlib.suppress(TimeoutError, StorageError):
            async with asyncio.timeout(WITHDRAW_TIME):
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
                name = f"{self._out}{self._written:012d}"
                await self._route.call("put_object", Key=name, Body=body)
                self._written += 1
                if not self._outgoing:
                    self._idle.set()
        except (StorageError, StreamBroken) as exc:
            self._trouble = exc
            self._room.set()
            self._idle.set()

    async def _wait_until_taken(self, number: int) -> None:
        name = f"{self._out}{number:012d}"
        pause = POLL_LEAST
        while number >= 0 and await self._route.call("head_object", Key=name) is not None:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, POLL_MOST)

    def _delete(self, name: str) -> None:
        task = self._loop.create_task(self._route.call("delete_object", Key=name))
        self._deleting.add(task)
        task.add_done_callback(self._deleting.discard)
