"""What every rendezvous store must do, as `punchlib.rendezvous.store` has it.

A new store needs one line in `STORES`.
"""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from punchlib import wiring
from punchlib.config import Config
from punchlib.rendezvous.dynamodb import DynamoDbStore
from punchlib.rendezvous.machine_service import StoreService
from punchlib.rendezvous.machine_store import MachineStore
from punchlib.rendezvous.memory import MemoryStore
from punchlib.rendezvous.store import Registered, RendezvousStore, Slot
from tests.support.ministack import MiniStack

OLD = '{"local_addr":"1.1.1.1:1","external_addr":"1.1.1.1:1"}'
MINE = '{"local_addr":"1.1.1.1:1","external_addr":"1.1.1.1:1","v":2,"side":"aa"}'
LATER = MINE.replace("aa", "ab")
THEIRS = MINE.replace("aa", "bb")

Body = Callable[[RendezvousStore], Awaitable[None]]
With = Callable[[Body], None]


def dynamodb() -> RendezvousStore:
    config = replace(Config.from_env(), table=f"rdv-{uuid.uuid4().hex}")
    return DynamoDbStore(lambda: wiring.dynamodb_client(config), table=config.table, patience=60)


class OnAMachine(MachineStore):
    """DynamoDB by way of the machine's store, and in no other way."""

    def __init__(self) -> None:
        self._engines, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._serving = asyncio.ensure_future(StoreService(theirs, dynamodb()).run())
        nobody: Any = None
        super().__init__(nobody, self._engines, {})

    async def close(self) -> None:
        await super().close()
        self._engines.close()
        await self._serving


STORES: dict[str, Callable[[], RendezvousStore]] = {
    "memory": MemoryStore,
    "dynamodb": dynamodb,
    "machine": OnAMachine,
}


@pytest.fixture(params=STORES)
def with_store(
    request: pytest.FixtureRequest, ministack: MiniStack, monkeypatch: pytest.MonkeyPatch
) -> With:
    """Runs a test's body on a fresh store."""
    for name, value in ministack.env.items():
        monkeypatch.setenv(name, value)

    async def main(body: Body) -> None:
        store = STORES[request.param]()
        try:
            await body(store)
        finally:
            if isinstance(store, OnAMachine):
                await store.close()

    return lambda body: asyncio.run(main(body))


def slots() -> tuple[Slot, Slot]:
    """The two ends under a new key, which may hold anything."""
    key = f"job é/{uuid.uuid4().hex}*#"
    return Slot(key, "0"), Slot(key, "1")


async def register(
    store: RendezvousStore, mine: Slot, peer: Slot, text: str, *, refuse: bool = True
) -> Registered:
    expires = int(time.time()) + 3600
    return await store.register(mine, text, peer.label, expires=expires, refuse_v1_peer=refuse)


def test_the_second_finds_the_first(with_store: With) -> None:
    async def body(store: RendezvousStore) -> None:
        one, two = slots()
        await store.ready()
        assert await register(store, one, two, MINE) == Registered(True, None)
        assert await register(store, two, one, THEIRS) == Registered(True, MINE)
        assert await store.read([one, two]) == {one: MINE, two: THEIRS}

    with_store(body)


def test_exactly_one_of_two_at_once_is_second(with_store: With) -> None:
    async def body(store: RendezvousStore) -> None:
        pairs = [slots() for _ in range(12)]
        answers = await asyncio.gather(
            *(
                register(store, mine, peer, MINE)
                for a, b in pairs
                for mine, peer in ((a, b), (b, a))
            )
        )
        for first, second in zip(answers[::2], answers[1::2], strict=True):
            assert {first.peer, second.peer} == {None, MINE}

    with_store(body)


def test_a_registration_overwrites_what_is_ours_and_nothing_else(with_store: With) -> None:
    async def body(store: RendezvousStore) -> None:
        one, two = slots()
        await register(store, two, one, THEIRS)
        await register(store, one, two, MINE)
        assert await register(store, one, two, LATER) == Registered(True, THEIRS)
        assert await store.read([one, two]) == {one: LATER, two: THEIRS}

    with_store(body)


def test_keys_and_labels_do_not_run_into_each_other(with_store: With) -> None:
    async def body(store: RendezvousStore) -> None:
        one, two = slots()
        others = [Slot(one.key + "0", "0"), Slot(one.key, "00"), Slot(one.key.upper(), "0")]
        for other in others:
            await register(store, other, two, THEIRS)
        assert await register(store, two, one, MINE) == Registered(True, None)
        assert await store.read([one]) == {}

    with_store(body)


@pytest.mark.parametrize("refuse", [True, False])
def test_an_old_peers_record(with_store: With, refuse: bool) -> None:
    """We are told of it, and are written only where we did not ask to hold first."""

    async def body(store: RendezvousStore) -> None:
        one, two = slots()
        await register(store, two, one, OLD)
        answer = await register(store, one, two, MINE, refuse=refuse)
        assert answer == Registered(not refuse, OLD)
        assert await store.read([one]) == ({} if refuse else {one: MINE})

    with_store(body)


def test_many_are_read_and_what_is_absent_is_left_out(with_store: With) -> None:
    async def body(store: RendezvousStore) -> None:
        assert await store.read([]) == {}
        pairs = [slots() for _ in range(5)]
        for one, two in pairs:
            await register(store, one, two, MINE)
        found = await store.read(slot for pair in pairs for slot in pair)
        assert found == {one: MINE for one, _ in pairs}

    with_store(body)


@pytest.mark.parametrize("instead", ["", '{"v":2,"gone":{}}'])
def test_what_is_ours_can_be_taken_back(with_store: With, instead: str) -> None:
    async def body(store: RendezvousStore) -> None:
        one, two = slots()
        await register(store, two, one, THEIRS)
        await register(store, one, two, MINE)
        await store.remove(one, MINE, instead=instead)
        left = {one: instead} if instead else {}
        assert await store.read([one, two]) == {**left, two: THEIRS}

    with_store(body)


@pytest.mark.parametrize("instead", ["", '{"v":2,"gone":{}}'])
def test_what_somebody_has_written_since_stays(with_store: With, instead: str) -> None:
    async def body(store: RendezvousStore) -> None:
        one, two = slots()
        await store.remove(one, MINE, instead=instead)  # nothing is there
        assert await store.read([one]) == {}
        await register(store, one, two, LATER)
        await store.remove(one, MINE, instead=instead)
        assert await store.read([one]) == {one: LATER}

    with_store(body)


def test_any_text_comes_back_as_it_went(with_store: With) -> None:
    async def body(store: RendezvousStore) -> None:
        one, two = slots()
        text = '{"v":2,"x":"' + "\\u0000 é \\\" ' % {} 🙂" * 1000 + '"}'
        await register(store, one, two, text)
        assert (await store.read([one]))[one] == text
        assert (await register(store, two, one, MINE)).peer == text

    with_store(body)
