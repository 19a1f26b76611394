"""The S3 route alone: right bytes, nothing left behind, a clear error for a refusing bucket."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import punchlib
from punchlib.config import Config
from punchlib.errors import PunchError, StorageError, StreamBroken
from punchlib.net.s3_route import OBJECT_SIZE, PREFIX
from punchlib.rendezvous.memory import MemoryStore
from tests.support.ministack import MiniStack

BUCKET = "s3-route-test"


@pytest.fixture
def config(ministack: MiniStack, monkeypatch: pytest.MonkeyPatch) -> Config:
    for name, value in ministack.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_BUCKET", BUCKET)
    monkeypatch.setenv("PUNCH_ROUTES", "s3")
    monkeypatch.setenv("PUNCH_TIMEOUT", "120")
    ministack.client("s3").create_bucket(Bucket=BUCKET)
    return Config.from_env()


def left(ministack: MiniStack) -> list[str]:
    answer = ministack.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=PREFIX)
    return [item["Key"] for item in answer.get("Contents", [])]


@pytest.mark.parametrize("size", [0, 1, 100_000, 2 * OBJECT_SIZE + 12345])
def test_the_bytes_arrive_and_nothing_is_left(
    config: Config, ministack: MiniStack, size: int
) -> None:
    payload, store = os.urandom(size), MemoryStore()

    async def send() -> None:
        async with punchlib.connect("a key/with *", 0, 1, config=config, store=store) as stream:
            assert stream.route == "s3"
            await stream.send(payload)

    async def receive() -> bytes:
        async with punchlib.connect("a key/with *", 1, 0, config=config, store=store) as stream:
            return b"".join([chunk async for chunk in stream])

    async def main() -> None:
        _, got = await asyncio.gather(send(), receive())
        assert got == payload

    asyncio.run(main())
    assert left(ministack) == []


def test_a_failure_travels_over_s3_too(config: Config, ministack: MiniStack) -> None:
    store = MemoryStore()

    async def send() -> None:
        async with punchlib.connect("k", 0, 1, config=config, store=store) as stream:
            await stream.send(b"half")
            raise ValueError("the source is broken")

    async def receive() -> None:
        async with punchlib.connect("k", 1, 0, config=config, store=store) as stream:
            async for _ in stream:
                pass

    async def main() -> None:
        _, received = await asyncio.gather(send(), receive(), return_exceptions=True)
        assert isinstance(received, StreamBroken)
        assert "the source is broken" in str(received)

    asyncio.run(main())
    assert left(ministack) == []


def test_a_bucket_that_is_not_there_is_named(config: Config, tmp_path: Path) -> None:
    store = MemoryStore()
    os.environ["AWS_BUCKET"] = "no-such-bucket-here"
    missing = Config.from_env()

    async def end(me: int) -> None:
        async with punchlib.connect("k", me, 1 - me, config=missing, store=store):
            raise AssertionError("connected through a bucket that is not there")

    async def main() -> None:
        results = await asyncio.gather(end(0), end(1), return_exceptions=True)
        assert all(isinstance(r, PunchError) for r in results)
        assert any(isinstance(r, StorageError) and "no-such-bucket-here" in str(r) for r in results)

    asyncio.run(main())
