"""The S3 route whose peer or whose uploads die: an error, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from punchlib.config import Config
from punchlib.core.frames import FrameType
from punchlib.core.liveness import Liveness
from punchlib.core.timing import TIMING
from punchlib.errors import PeerSilent, StorageError
from punchlib.net.s3_route import WINDOW, S3Channel, S3Route
from punchlib.net.watching import watched
from tests.support.stream_rig import both, run, terms_pair

#: Far less than `run` allows, so that an error can be told from a wait without end.
SILENCE = 1.0
FAST = TIMING.scaled(0.05).patient(SILENCE)


class Bucket:
    """An S3 client with a bucket of its own, in memory.

    Attributes:
        trouble: is raised by what is put; None for nothing.
        puts: how often something was put, in vain or not.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.trouble: Exception | None = None
        self.puts = 0

    def put_object(self, **request: Any) -> dict[str, Any]:
        self.puts += 1
        if self.trouble is not None:
            raise self.trouble
        self.objects[request["Key"]] = request["Body"]
        return {}

    def get_object(self, **request: Any) -> dict[str, Any]:
        body = self._found(request["Key"])
        return {"Body": io.BytesIO(body), "ContentLength": len(body)}

    def head_object(self, **request: Any) -> dict[str, Any]:
        self._found(request["Key"])
        return {}

    def delete_object(self, **request: Any) -> dict[str, Any]:
        self.objects.pop(request["Key"], None)
        return {}

    def _found(self, key: str) -> bytes:
        try:
            return self.objects[key]
        except KeyError:
            raise ClientError({"Error": {"Code": "404"}}, "GetObject") from None


def met(
    test: Callable[[Bucket, S3Channel, S3Channel], Awaitable[None]], *, retry: float = 0.0
) -> None:
    """Runs a test with two ends that have met over a bucket, and try again for so long."""

    async def work() -> None:
        bucket = Bucket()
        config = Config(bucket="b", stall_timeout=SILENCE)
        timing = dataclasses.replace(FAST, object_retry=retry)
        routes = [S3Route(config, lambda: bucket, timing=timing) for _ in range(2)]
        sending, receiving = terms_pair()
        here, there = await both(routes[0].open(sending), routes[1].open(receiving))
        try:
            await test(bucket, here, there)
        finally:
            here.close()
            there.close()

    run(work)


def test_a_peer_that_dies_while_our_last_word_waits_behind_a_full_window() -> None:
    """A receiver's ACK behind its PINGs: it hung for ever, for nobody counted the silence."""

    async def test(bucket: Bucket, here: S3Channel, there: S3Channel) -> None:
        here.close()
        for _ in range(WINDOW):
            await there.send(FrameType.PING)
            await there.flush()
        await there.send(FrameType.ACK)
        alive = Liveness(FAST, asyncio.get_running_loop().time(), ping=None)
        with pytest.raises(PeerSilent, match="has said nothing"):
            async with watched(there, alive):
                await there.flush()

    met(test)


def test_an_upload_that_dies_of_anything_is_an_error() -> None:
    """It hung: the task that uploads was dead, and what it was to say was never said."""

    async def test(bucket: Bucket, here: S3Channel, _: S3Channel) -> None:
        bucket.trouble = RuntimeError("can't start new thread")
        await here.send(FrameType.DATA, b"lost")
        for wait in (here.flush, lambda: here.send(FrameType.PING)):
            with pytest.raises(StorageError, match="can't start new thread"):
                await wait()

    met(test)


def test_an_answer_that_cannot_be_read_is_asked_for_again() -> None:
    async def test(bucket: Bucket, here: S3Channel, there: S3Channel) -> None:
        puts = bucket.puts
        bucket.trouble = ResponseParserError("no XML")
        await here.send(FrameType.DATA, b"late")
        while bucket.puts == puts:
            await asyncio.sleep(0.001)
        bucket.trouble = None
        assert (await there.receive()).type is FrameType.PING
        assert bytes((await there.receive()).payload) == b"late"

    met(test, retry=60.0)


def test_answers_that_can_never_be_read_are_an_error_that_names_the_bucket() -> None:
    async def test(bucket: Bucket, here: S3Channel, _: S3Channel) -> None:
        bucket.trouble = ResponseParserError("no XML")
        await here.send(FrameType.DATA, b"lost")
        with pytest.raises(StorageError, match="put_object in bucket b failed: no XML") as caught:
            await here.flush()
        assert caught.value.may_pass

    met(test)
