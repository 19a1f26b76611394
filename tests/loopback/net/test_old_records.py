"""Records that an earlier run left, and clocks that are wrong: the peers meet all the same."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import replace
from typing import Any

import pytest

from punchlib import wiring
from punchlib.config import Config, Route
from punchlib.errors import RendezvousTimeout
from punchlib.rendezvous.dynamodb import DynamoDbStore
from punchlib.rendezvous.store import Slot
from tests.loopback.net.conftest import RECV, SEND, World, assert_talk, pair, run
from tests.support.ministack import MiniStack
from tests.support.tiers import quick

DAY = 86_400.0
WRONG = [600.0, -600.0, DAY, -DAY, 30 * 365 * DAY]


async def registered(world: World) -> str:
    """The receiver's record, as soon as it is there."""
    async with asyncio.timeout(60):
        while (record := world.store.records.get(Slot("k", "1"))) is None:
            await asyncio.sleep(0.01)
    return record


def test_a_peer_that_restarts_is_followed(world: World) -> None:
    async def main() -> None:
        a, dead, b = world.connector(), world.connector(), world.connector()
        # The first receiver registers and is killed: its record stays, its ports are closed.
        doomed = asyncio.ensure_future(dead.establish(RECV))
        record = await registered(world)
        doomed.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await doomed
        world.store.records[Slot("k", "1")] = record
        sender = asyncio.ensure_future(a.establish(SEND))
        await asyncio.sleep(0.5)
        receiver = await b.establish(RECV)
        await assert_talk(await sender, receiver)

    run(world, main)


@pytest.mark.parametrize("lateness", quick([0.5, 4.0], 1))
def test_a_stale_record_is_waited_out(world: World, lateness: float) -> None:
    """A killed run's record has not expired: all attempts against it fail, then the peer comes."""

    async def main() -> None:
        a, ghost, b = world.connector(), world.connector(), world.connector()
        doomed = asyncio.ensure_future(ghost.establish(RECV))
        record = await registered(world)
        doomed.cancel()
        await asyncio.gather(doomed, return_exceptions=True)
        world.store.records[Slot("k", "1")] = record
        sender = asyncio.ensure_future(a.establish(SEND))
        await asyncio.sleep(lateness)
        started = time.monotonic()
        receiver = await b.establish(RECV)
        assert time.monotonic() - started < 15.0
        await assert_talk(await sender, receiver)

    run(world, main)


def test_a_record_of_an_earlier_run_is_the_end_of_nothing(world: World) -> None:
    """It cannot even be spoken with; whoever left it is not there, so the wait goes on."""

    async def main() -> None:
        ghost = world.connector(timeout=0.3)
        with pytest.raises(RendezvousTimeout):
            await ghost.establish(RECV)
        text = json.dumps(
            {
                "local_addr": "127.0.0.1:9",
                "external_addr": "127.0.0.1:9",
                "v": 2,
                "side": "0" * 16,
                "ts": 0,
                "expires": int(time.time()) - 1,
            },
            separators=(",", ":"),
        )
        world.store.records[Slot("k", "1")] = text
        with pytest.raises(RendezvousTimeout, match="earlier run"):
            await world.connector(timeout=0.5).establish(SEND)

    run(world, main)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("who", ["the first", "the second", "both, each its own way"])
def test_neither_ends_clock_counts(world: World, who: str, wrong: float) -> None:
    """A receiver ten minutes off never met its peer, and was told of "an earlier run"."""

    async def main() -> None:
        first = wrong if who != "the second" else 0.0
        second = {"the first": 0.0, "the second": wrong}.get(who, -wrong)
        a = world.connector(wall=lambda: time.time() + first)
        b = world.connector(wall=lambda: time.time() + second)
        sending = asyncio.ensure_future(a.establish(SEND))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        sender, receiver = await pair(sending, b.establish(RECV))
        assert time.monotonic() - started < 15.0
        assert sender.attempt == receiver.attempt == 1
        await assert_talk(sender, receiver)

    run(world, main)


@pytest.mark.parametrize("wrong", WRONG[:4])
def test_clocks_do_not_count_in_dynamodb_either(
    stun: tuple[str, int], ministack: MiniStack, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    """The table's TTL is by such a clock, too."""
    for name, value in ministack.env.items():
        monkeypatch.setenv(name, value)
    config = replace(Config.from_env(), stun_servers=(stun,), timeout=20.0, stun_timeout=4.0)
    world = World(config)

    async def main() -> None:
        table = f"rdv-{time.time_ns()}"
        stores = [
            DynamoDbStore(lambda: wiring.dynamodb_client(config), table=table) for _ in range(2)
        ]
        a = world.connector(store=stores[0], wall=lambda: time.time() + wrong)
        b = world.connector(store=stores[1])
        sending = asyncio.ensure_future(a.establish(SEND))
        await asyncio.sleep(1.0)
        sender, receiver = await pair(sending, b.establish(RECV))
        assert sender.attempt == receiver.attempt == 1
        await assert_talk(sender, receiver)

    run(world, main)


@pytest.mark.parametrize("wrong", WRONG[:4])
def test_a_leftover_is_left_whatever_the_clock_says(world: World, wrong: float) -> None:
    """It is dialled for some seconds, which is no harm, and never fatal: then its owner comes."""

    async def main() -> None:
        ghost = world.connector(wall=lambda: time.time() + wrong)
        doomed = asyncio.ensure_future(ghost.establish(RECV))
        left = await registered(world)
        doomed.cancel()
        await asyncio.gather(doomed, return_exceptions=True)
        world.store.records[Slot("k", "1")] = left
        nowhere: dict[str, Any] = {"routes": (Route.HOST,), "timeout": 30.0}
        sending = asyncio.ensure_future(world.connector(**nowhere).establish(SEND))
        await asyncio.sleep(1.0)
        assert not sending.done()
        sender, receiver = await pair(sending, world.connector(**nowhere).establish(RECV))
        await assert_talk(sender, receiver)

    run(world, main)
