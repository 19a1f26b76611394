"""How often the store is read, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from punchlib.rendezvous.memory import MemoryStore
from punchlib.rendezvous.store import Slot
from punchlib.rendezvous.watcher import SLOWEST, Watcher
from tests.support.virtual_loop import VirtualLoop

ONE = Slot("key", "0")


class Store(MemoryStore):
    """Whose reads take a while.

    Attributes:
        read_at: when each read was asked for.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.read_at: list[float] = []

    async def read(self, slots: Iterable[Slot]) -> dict[Slot, str]:
        self.read_at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.seconds)
        return await super().read(slots)


def waited(seconds: float, read_takes: float) -> list[float]:
    """When the store was read, while one peer was waited for so long."""

    async def main() -> list[float]:
        store = Store(read_takes)
        watcher = Watcher(store)
        waiting = asyncio.ensure_future(watcher.changed(ONE, None))
        await asyncio.sleep(seconds)
        store.records[ONE] = "here"
        came = asyncio.get_running_loop().time()
        assert await waiting == "here"
        assert asyncio.get_running_loop().time() - came <= SLOWEST + 2 * read_takes
        await watcher.close()
        return store.read_at

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


def test_the_pause_grows_with_the_time_waited() -> None:
    reads = waited(600.0, 0.005)
    assert len([t for t in reads if t < 1]) > 20, "a peer that comes at once is seen at once"
    for start, most in ((30, 10), (120, 2), (400, 0.4)):
        assert len([t for t in reads if start <= t < start + 10]) <= most * 10
    assert len(reads) < 1200


@pytest.mark.parametrize("read_takes", [0.1, 0.5, 2.0])
def test_under_load_less_is_read(read_takes: float) -> None:
    """Reads take a third of the time at the most, or we would be the load."""
    reads = waited(60.0, read_takes)
    assert len(reads) * read_takes < 60 * 0.45


def test_all_who_wait_are_read_in_one_call() -> None:
    async def main() -> None:
        store = Store(0.005)
        watcher = Watcher(store)
        slots = [Slot(f"k{n}", "0") for n in range(50)]
        waiting = [asyncio.ensure_future(watcher.changed(s, None)) for s in slots]
        await asyncio.sleep(10.0)
        assert len(store.read_at) < 250
        for slot in slots:
            store.records[slot] = "here"
        assert await asyncio.gather(*waiting) == ["here"] * 50
        await watcher.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def test_who_is_told_in_the_moment_of_its_coming_leaves_the_reader_alive() -> None:
    """It died of having nobody to wait for, and `close` raised its error."""

    async def main() -> None:
        watcher = Watcher(Store(0.005))
        for text in ("one", "two"):
            waiting = asyncio.ensure_future(watcher.changed(ONE, None))
            await asyncio.sleep(0)
            watcher.tell(ONE, text)
            assert await waiting == text
            await asyncio.sleep(1.0)  # the reader waits for somebody to come
        await watcher.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
