"""Two that are told nothing of each other meet, whatever lies in the table from before."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine

import pytest

from punchlib.doctor import pairing
from punchlib.doctor.pairing import Pair, Pairing, _Seated
from punchlib.errors import RendezvousTimeout
from punchlib.rendezvous.memory import MemoryStore
from punchlib.rendezvous.store import Slot
from tests.support.virtual_loop import VirtualLoop

#: What may lie on a seat when the first comes.
LEFT = (
    None,
    _Seated("dead").text(),
    _Seated("dead", "another").text(),
    '{"local_addr":"1.2.3.4:5","external_addr":"1.2.3.4:5"}',
    "no JSON",
    "[]",
)


def run(main: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main)


async def meet(store: MemoryStore, after: float, patience: float = 60.0) -> Pair:
    await asyncio.sleep(after)
    async with Pairing(store, "k", patience) as end:
        pair = await end.meet()
        await asyncio.sleep(5)  # as long as a ping lasts
        return pair


@pytest.mark.parametrize("seed", range(60))
def test_they_meet(seed: int) -> None:
    chance = random.Random(seed)
    random.seed(seed)  # where each sits down
    store = MemoryStore()
    for seat in pairing.SEATS:
        stands = chance.choice(LEFT)
        if stands:
            store.records[Slot("ping/k", seat)] = stands

    async def main() -> None:
        a, b = await asyncio.gather(*(meet(store, chance.uniform(0, 3)) for _ in range(2)))
        assert a.key == b.key
        assert a.first != b.first
        assert "dead" not in a.key

    run(main())
    left = [_Seated.parse(text) for text in store.records.values()]
    assert all(seated is None or seated.token == "dead" for seated in left)


def test_two_pairs_one_after_the_other_have_different_keys() -> None:
    store = MemoryStore()

    async def main() -> None:
        one, _ = await asyncio.gather(meet(store, 0), meet(store, 1))
        two, _ = await asyncio.gather(meet(store, 0), meet(store, 1))
        assert one.key != two.key

    run(main())


@pytest.mark.parametrize("left", LEFT)
def test_nobody_comes(left: str | None) -> None:
    store = MemoryStore()
    if left:
        store.records = {Slot("ping/k", seat): left for seat in pairing.SEATS}

    async def main() -> None:
        with pytest.raises(RendezvousTimeout, match="nobody else pinged 'k' within 8 s"):
            await meet(store, 0, patience=8.0)

    run(main())
