"""What every rendezvous store must do, whatever it is made of: see `RendezvousStore`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from punchlib import wiring
from punchlib.config import Config
from punchlib.rendezvous.dynamodb import DynamoDbStore
from punchlib.rendezvous.memory import MemoryStore
from punchlib.rendezvous.store import RendezvousStore, Slot
from punchlib.rendezvous.watcher import Watcher
from tests.support.ministack import MiniStack

V2 = '{"local_addr":"1.1.1.1:1","external_addr":"1.1.1.1:1","v":2}'
V1 = '{"local_addr":"1.1.1.1:1","external_addr":"1.1.1.1:1"}'
ONE, TWO = Slot("key", "0"), Slot("key", "1")

Run = Callable[[Callable[[RendezvousStore], Awaitable[None]]], None]


@pytest.fixture(params=["memory", "dynamodb"])
def run(
    request: pytest.FixtureRequest, ministack: MiniStack, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs a test's body with a fresh store."""
    for name, value in ministack.env.items():
        monkeypatch.setenv(name, value)
    config = replace(Config.from_env(), table=f"rdv-{time.time_ns()}")

    def fresh() -> RendezvousStore:
        if request.param == "memory":
            return MemoryStore()
        return DynamoDbStore(lambda: wiring.dynamodb_client(config), table=config.table)

    async def main(body: Callable[[RendezvousStore], Awaitable[None]]) -> None:
        store = fresh()
        await store.ready()
        await body(store)

    return lambda body: asyncio.run(main(body))


async def register(store: RendezvousStore, mine: Slot, text: str, *, refuse: bool = True) -> Any:
    peer = "1" if mine.label == "0" else "0"
    expires = int(time.time()) + 60
    return await store.register(mine, text, peer, expires=expires, refuse_v1_peer=refuse)


def test_exactly_one_is_second(run: Run) -> None:
    async def main(store: RendezvousStore) -> None:
        pairs = [(Slot(f"k{n}", "0"), Slot(f"k{n}", "1")) for n in range(40)]
        answers = await asyncio.gather(*(register(store, s, V2) for pair in pairs for s in pair))
        for a, b in zip(answers[::2], answers[1::2], strict=True):
            assert a.accepted and b.accepted
            assert {a.peer, b.peer} == {None, V2}
        found = await store.read([s for pair in pairs for s in pair])
        assert found == {s: V2 for pair in pairs for s in pair}

    run(main)


def test_registering_again_overwrites(run: Run) -> None:
    async def main(store: RendezvousStore) -> None:
        await register(store, ONE, V2 + " ")
        await register(store, ONE, V2)
        assert await store.read([ONE, TWO]) == {ONE: V2}

    run(main)


def test_an_old_peer_is_met_before_we_are_seen(run: Run) -> None:
    async def main(store: RendezvousStore) -> None:
        await register(store, TWO, V1)
        answer = await register(store, ONE, V2)
        assert (answer.accepted, answer.peer) == (False, V1)
        assert await store.read([ONE]) == {}
        answer = await register(store, ONE, V2, refuse=False)
        assert (answer.accepted, answer.peer) == (True, V1)
        assert await store.read([ONE]) == {ONE: V2}

    run(main)


def test_only_what_is_still_ours_is_removed(run: Run) -> None:
    async def main(store: RendezvousStore) -> None:
        await register(store, ONE, V2)
        await store.remove(ONE, V2 + " of an earlier run")
        assert await store.read([ONE]) == {ONE: V2}
        await store.remove(ONE, V2)
        assert await store.read([ONE]) == {}

    run(main)


def test_word_may_be_left_instead(run: Run) -> None:
    async def main(store: RendezvousStore) -> None:
        await register(store, ONE, V2)
        await store.remove(ONE, V2 + " of an earlier run", instead="gone")
        assert await store.read([ONE]) == {ONE: V2}
        await store.remove(ONE, V2, instead="gone")
        assert await store.read([ONE]) == {ONE: "gone"}

    run(main)


def test_what_is_not_there_is_left_out(run: Run) -> None:
    async def main(store: RendezvousStore) -> None:
        assert await store.read([]) == {}
        assert await store.read([ONE, TWO]) == {}
        await register(store, ONE, V2)
        assert await store.read([ONE, ONE, TWO, Slot("nobody", "0")]) == {ONE: V2}
        await store.remove(TWO, V2)  # that nothing stands there is no error

    run(main)


def test_many_keys_are_read_at_once(run: Run) -> None:
    async def main(store: RendezvousStore) -> None:
        slots = [Slot(f"k{n}", "0") for n in range(230)]
        await asyncio.gather(*(register(store, s, V2) for s in slots))
        assert len(await store.read([*slots, Slot("nobody", "0")])) == 230

    run(main)


@pytest.mark.parametrize("text", ["é€😀" * 50, '"\\n\x1b', "x" * 20_000])
def test_any_text_comes_back_as_it_was(run: Run, text: str) -> None:
    async def main(store: RendezvousStore) -> None:
        key = Slot("key with * # / é", "label é")
        await store.register(key, text, "1", expires=2_000_000_000, refuse_v1_peer=False)
        assert await store.read([key]) == {key: text}
        await store.remove(key, text)
        assert await store.read([key]) == {}

    run(main)


@pytest.mark.parametrize("wrong", [-86_400, -600, 0, 600, 86_400])
def test_a_record_stays_whatever_its_owners_clock(run: Run, wrong: int) -> None:
    async def main(store: RendezvousStore) -> None:
        expires = int(time.time()) + wrong + 60
        await store.register(ONE, V2, "1", expires=expires, refuse_v1_peer=False)
        await asyncio.sleep(0.05)
        assert await store.read([ONE]) == {ONE: V2}

    run(main)


def test_a_change_is_seen(run: Run) -> None:
    async def main(store: RendezvousStore) -> None:
        watcher = Watcher(store)
        seen = asyncio.ensure_future(watcher.changed(ONE, None))
        await asyncio.sleep(0.1)
        assert not seen.done()
        await register(store, ONE, V2)
        async with asyncio.timeout(5):
            assert await seen == V2
            again = asyncio.ensure_future(watcher.changed(ONE, V2))
            await register(store, ONE, V1)
            assert await again == V1
        await watcher.close()

    run(main)
