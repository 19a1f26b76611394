"""The Python API: two ends, in one process and in two."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

import punchlib
from punchlib.config import Config
from punchlib.core.events import (
    AttemptStarted,
    Connected,
    Event,
    PeerSeen,
    Registered,
    StunAnswered,
)
from punchlib.errors import StreamBroken, UsageError
from punchlib.pump import unsent
from punchlib.rendezvous.memory import MemoryStore
from tests.support.coturn import coturn
from tests.support.ministack import MiniStack

PAYLOAD = os.urandom(3_000_000)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    with coturn(tmp_path_factory.mktemp("coturn")) as server:
        yield Config(stun_servers=(server,), timeout=60.0)


def test_both_ends(config: Config) -> None:
    store = MemoryStore()

    async def send() -> None:
        async with punchlib.connect("k", 0, 1, config=config, store=store) as stream:
            assert (stream.sending, stream.route, stream.attempt) == (True, "host", 1)
            assert stream.setup_ms >= 0
            await stream.send(PAYLOAD)

    async def receive() -> bytes:
        async with punchlib.connect("k", 1, 0, config=config, store=store) as stream:
            return b"".join([chunk async for chunk in stream])

    async def main() -> None:
        _, got = await asyncio.gather(send(), receive())
        assert got == PAYLOAD

    asyncio.run(main())
    assert store.records == {}


def test_the_senders_failure_is_not_an_end(config: Config) -> None:
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
        sent, received = await asyncio.gather(send(), receive(), return_exceptions=True)
        assert isinstance(sent, ValueError)
        assert isinstance(received, StreamBroken)
        assert "the source is broken" in str(received)

    asyncio.run(main())


def test_a_receiver_that_leaves_stops_the_sender(config: Config) -> None:
    store = MemoryStore()

    async def send() -> None:
        async with punchlib.connect("k", 0, 1, config=config, store=store) as stream:
            with pytest.raises(StreamBroken, match="left"):
                while True:
                    await stream.send(bytes(100_000))

    async def receive() -> None:
        async with punchlib.connect("k", 1, 0, config=config, store=store) as stream:
            assert await stream.receive(10)

    async def main() -> None:
        await asyncio.gather(send(), receive())

    asyncio.run(main())


def test_a_time_out_while_the_block_ends_leaves_nothing_behind(config: Config) -> None:
    """The block's end waits for the receiver's ACK; a pump left behind would harm other streams."""
    store = MemoryStore()

    async def main() -> None:
        done = asyncio.Event()

        async def receive() -> None:
            with pytest.raises(StreamBroken):
                async with punchlib.connect("k", 1, 0, config=config, store=store) as stream:
                    await done.wait()
                    while await stream.receive():
                        pass

        receiving = asyncio.ensure_future(receive())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                async with punchlib.connect("k", 0, 1, config=config, store=store) as stream:
                    await stream.send(PAYLOAD[:300_000])
                    # What comes before may take its time on a busy machine.
                    limit.reschedule(asyncio.get_running_loop().time() + 1.0)
        assert not any("_speak" in repr(task) for task in asyncio.all_tasks())
        assert not unsent._senders
        done.set()
        await receiving

    asyncio.run(main())


def test_the_wrong_direction_is_said(config: Config) -> None:
    store = MemoryStore()

    async def end(me: int) -> None:
        async with punchlib.connect("k", me, 1 - me, config=config, store=store) as stream:
            with pytest.raises(UsageError, match="label"):
                await (stream.send(b"x") if me else stream.receive())

    async def main() -> None:
        await asyncio.gather(end(0), end(1))

    asyncio.run(main())


def test_the_blocking_twin(config: Config) -> None:
    store = MemoryStore()
    got: list[bytes] = []

    def receive() -> None:
        with punchlib.connect_blocking("k", 1, 0, config=config, store=store) as stream:
            got.extend(stream)

    thread = threading.Thread(target=receive)
    thread.start()
    with punchlib.connect_blocking("k", 0, 1, config=config, store=store) as stream:
        for start in range(0, len(PAYLOAD), 100_000):
            stream.send(PAYLOAD[start : start + 100_000])
    thread.join(10)
    assert b"".join(got) == PAYLOAD


def test_the_documented_example(ministack: MiniStack, config: Config) -> None:
    """docs/python-api.md: two processes over the real rendezvous."""
    host, port = config.stun_servers[0]
    env = os.environ | ministack.env | {"PASH_STUN_SERVER": f"{host}:{port}"}
    sender = """
import asyncio, punchlib
async def main():
    async with punchlib.connect("greeting", me=0, peer=1) as stream:
        await stream.send(b"hello from another machine\\n")
asyncio.run(main())
"""
    receiver = """
import punchlib, sys
with punchlib.connect_blocking("greeting", me=1, peer=0) as stream:
    for chunk in stream:
        sys.stdout.buffer.write(chunk)
"""
    first = subprocess.Popen([sys.executable, "-c", sender], env=env)
    second = subprocess.run(
        [sys.executable, "-c", receiver], env=env, capture_output=True, timeout=60, check=True
    )
    assert second.stdout == b"hello from another machine\n"
    assert first.wait(30) == 0


def test_what_happens_is_reported_and_nothing_is_printed(
    config: Config, capfd: pytest.CaptureFixture[str]
) -> None:
    store = MemoryStore()
    events: list[Event] = []

    async def end(me: int) -> None:
        async with punchlib.connect(
            "k", me, 1 - me, config=config, store=store, report=events.append
        ) as stream:
            if me == 0:
                await stream.send(b"hello")
            else:
                assert b"".join([chunk async for chunk in stream]) == b"hello"

    async def main() -> None:
        await asyncio.gather(end(0), end(1))

    asyncio.run(main())
    for sending in (True, False):
        mine = [type(event) for event in events if event.spec.sending is sending]
        assert mine == [StunAnswered, Registered, PeerSeen, AttemptStarted, Connected]
    assert capfd.readouterr() == ("", "")
