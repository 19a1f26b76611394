"""Who may write to the bucket can make a stream of the S3 route fail, and nothing more."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from punchlib.config import Config
from punchlib.core.frames import FrameType
from punchlib.core.handshake import Terms
from punchlib.errors import StreamBroken
from punchlib.net.s3_route import PREFIX, S3Channel, S3Route
from tests.support.ministack import MiniStack
from tests.support.stream_rig import both, terms_pair

BUCKET = "sealed"
SECURITIES = pytest.mark.parametrize("security", ["authenticated", "encrypted"])
#: The sender's objects: a PING of its opening, then one frame each.
FRAMES = [b"first", b"second", b"third"]


class Bucket:
    """The bucket, in the hands of somebody who may do anything in it."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def names(self) -> list[str]:
        """The sender's objects."""
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix=PREFIX).get("Contents", [])
        return sorted(item["Key"] for item in listed if "/s/" in item["Key"])

    def get(self, name: str) -> bytes:
        body: bytes = self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        return body

    def put(self, name: str, body: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=name, Body=body)

    def empty(self) -> None:
        for item in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            self.client.delete_object(Bucket=BUCKET, Key=item["Key"])


@pytest.fixture
def bucket(ministack: MiniStack) -> Bucket:
    client = ministack.client("s3")
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=BUCKET)
    bucket = Bucket(client)
    bucket.empty()
    return bucket


def route(bucket: Bucket) -> S3Route:
    return S3Route(Config(bucket=BUCKET), lambda: bucket.client)


async def written(bucket: Bucket, terms: tuple[Terms, Terms]) -> tuple[S3Channel, S3Channel]:
    """Two ends that have met, and three objects on their way."""
    here, there = await both(route(bucket).open(terms[0]), route(bucket).open(terms[1]))
    for payload in FRAMES:
        await here.send(FrameType.DATA, payload)
        await here.flush()
    while len(bucket.names()) > len(FRAMES):  # the PING is being deleted
        await asyncio.sleep(0.01)
    return here, there


async def read(channel: S3Channel) -> list[bytes]:
    assert (await channel.receive()).type is FrameType.PING
    return [bytes((await channel.receive()).payload) for _ in FRAMES]


def exchange(bucket: Bucket) -> None:
    first, second, _ = bucket.names()
    a, b = bucket.get(first), bucket.get(second)
    bucket.put(first, b)
    bucket.put(second, a)


def replay(bucket: Bucket) -> None:
    first, second, _ = bucket.names()
    bucket.put(second, bucket.get(first))


def cut(bucket: Bucket) -> None:
    first, *_ = bucket.names()
    bucket.put(first, bucket.get(first)[:-1])


def grow(bucket: Bucket) -> None:
    first, *_ = bucket.names()
    bucket.put(first, bucket.get(first) + b"\x50\x00\x00\x71")


def drop(bucket: Bucket) -> None:
    """One is taken out, and the rest moved up."""
    first, second, third = bucket.names()
    bucket.put(first, bucket.get(second))
    bucket.put(second, bucket.get(third))


def forge(bucket: Bucket) -> None:
    first, *_ = bucket.names()
    bucket.put(first, b"\x10\x00\x05" + b"\x00first")


def empty(bucket: Bucket) -> None:
    first, *_ = bucket.names()
    bucket.put(first, b"")


@SECURITIES
@pytest.mark.parametrize("meddle", [exchange, replay, cut, grow, drop, forge, empty])
def test_whoever_meddles_breaks_the_stream(
    bucket: Bucket, security: str, meddle: Callable[[Bucket], None]
) -> None:
    async def work() -> None:
        here, there = await written(bucket, terms_pair(security))
        meddle(bucket)
        with pytest.raises(StreamBroken, match="is not what the peer wrote"):
            await read(there)
        here.close()
        there.close()

    asyncio.run(work())


@SECURITIES
def test_what_an_earlier_attempt_left_is_not_taken(bucket: Bucket, security: str) -> None:
    async def work() -> None:
        here, there = await written(bucket, terms_pair(security))
        old = [bucket.get(name) for name in bucket.names()]
        for one in (here, there):
            one.close()
        bucket.empty()
        here, there = await written(bucket, terms_pair(security))
        for name, body in zip(bucket.names(), old, strict=True):
            bucket.put(name, body)
        with pytest.raises(StreamBroken, match="is not what the peer wrote"):
            await read(there)
        here.close()
        there.close()

    asyncio.run(work())


@SECURITIES
def test_left_alone_it_arrives_and_is_as_secret_as_asked(bucket: Bucket, security: str) -> None:
    async def work() -> None:
        here, there = await written(bucket, terms_pair(security))
        seen = b"".join(bucket.get(name) for name in bucket.names())
        assert (FRAMES[0] in seen) == (security == "authenticated")
        assert await read(there) == FRAMES
        here.close()
        there.close()

    asyncio.run(work())


def test_with_a_peer_of_the_first_release_objects_are_bare(bucket: Bucket) -> None:
    """It cannot open what is sealed; docs/security.md says what holds then."""

    async def work() -> None:
        sending, receiving = terms_pair("encrypted")
        old = [dataclasses.replace(terms, revision=0) for terms in (sending, receiving)]
        here, there = await written(bucket, (old[0], old[1]))
        first, *_ = bucket.names()
        assert bucket.get(first)[4:] == FRAMES[0]
        assert await read(there) == FRAMES
        here.close()
        there.close()

    asyncio.run(work())


def test_one_that_seals_does_not_take_bare_objects(bucket: Bucket) -> None:
    async def work() -> None:
        sending, receiving = terms_pair("authenticated")
        bare = dataclasses.replace(sending, revision=0)
        ends = await asyncio.gather(
            asyncio.wait_for(route(bucket).open(bare), 5),
            route(bucket).open(receiving),
            return_exceptions=True,
        )
        assert isinstance(ends[1], StreamBroken)
        if isinstance(ends[0], S3Channel):
            ends[0].close()

    asyncio.run(work())


def test_a_huge_object_fills_no_memory(bucket: Bucket) -> None:
    async def work() -> None:
        here, there = await written(bucket, terms_pair("encrypted"))
        bucket.put(bucket.names()[0], bytes(24 << 20))
        tracemalloc.start()
        try:
            with pytest.raises(StreamBroken, match="larger than any object of a stream"):
                await read(there)
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()
        here.close()
        there.close()

    asyncio.run(work())


def test_random_objects_of_any_size_are_refused(bucket: Bucket) -> None:
    async def work() -> None:
        for size in (1, 16, 31, 32, 33, 48, 5000):
            bucket.empty()
            here, there = await written(bucket, terms_pair("encrypted"))
            bucket.put(bucket.names()[0], os.urandom(size))
            with pytest.raises(StreamBroken, match="is not what the peer wrote"):
                await read(there)
            here.close()
            there.close()

    asyncio.run(work())
