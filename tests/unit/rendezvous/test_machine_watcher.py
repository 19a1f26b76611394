"""One reader for all processes of a machine: what they see of it, and what when it is gone."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from punchlib.errors import RendezvousError
from punchlib.rendezvous.machine_watcher import Announced, MachineWatcher, WatchService
from punchlib.rendezvous.memory import MemoryStore
from punchlib.rendezvous.store import Slot
from punchlib.rendezvous.watcher import BURST, RATE, Watcher

ONE, TWO = Slot("key", "0"), Slot("key", "1")


class Refusing(MemoryStore):
    async def read(self, slots: Iterable[Slot]) -> dict[Slot, str]:
        raise RendezvousError("refused")


class Stuck(MemoryStore):
    async def read(self, slots: Iterable[Slot]) -> dict[Slot, str]:
        await asyncio.get_running_loop().create_future()
        raise AssertionError


class Machine:
    """A service in this loop, and processes that ask it.

    Attributes:
        stores: by name, what the service reads.
        own: what each process reads where it must do so by itself.
    """

    def __init__(self) -> None:
        self.stores: dict[str, MemoryStore] = {"a": MemoryStore(), "b": MemoryStore()}
        self.own = MemoryStore()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs = theirs
        self.service = WatchService(theirs, lambda way: self.stores[way["name"]])
        self.running = asyncio.ensure_future(self.service.run())
        self.processes: list[MachineWatcher] = []

    def process(self, name: str = "a") -> MachineWatcher:
        found = MachineWatcher(Watcher(self.own), self.control, {"name": name})
        self.processes.append(found)
        return found

    async def end(self) -> None:
        for process in self.processes:
            await process.close()
        self.control.close()
        await asyncio.wait_for(self.running, 5)
        self.theirs.close()


def on_a_machine(body: Callable[[Machine], Awaitable[None]]) -> None:
    async def main() -> None:
        machine = Machine()
        try:
            await asyncio.wait_for(body(machine), 10)
        finally:
            await machine.end()

    asyncio.run(main())


def test_news_reach_who_waits_for_them() -> None:
    async def body(machine: Machine) -> None:
        store = machine.stores["a"]
        waiting = [asyncio.ensure_future(machine.process().changed(ONE, None)) for _ in range(20)]
        await asyncio.sleep(0.1)
        reads = store.calls["read"]
        store.records[ONE] = "here"
        assert await asyncio.gather(*waiting) == ["here"] * 20
        assert store.calls["read"] - reads <= 3, "one read for all"
        assert machine.own.calls["read"] == 0
        again = asyncio.ensure_future(machine.processes[0].changed(ONE, "here"))
        await asyncio.sleep(0.1)
        assert not again.done()
        store.records[ONE] = "new"
        assert await again == "new"

    on_a_machine(body)


def test_what_is_registered_on_the_machine_needs_no_read() -> None:
    async def body(machine: Machine) -> None:
        store = machine.stores["a"] = Stuck()
        waiting = asyncio.ensure_future(machine.process().changed(ONE, None))
        other = asyncio.ensure_future(machine.process().changed(TWO, None))
        elsewhere = asyncio.ensure_future(machine.process("b").changed(ONE, None))
        await asyncio.sleep(0.05)
        here = Announced(store, machine.process())
        await here.register(ONE, "here", "1", expires=0, refuse_v1_peer=False)
        assert await waiting == "here"
        await asyncio.sleep(0.05)
        assert not other.done()
        assert not elsewhere.done(), "that is another table"
        for task in (other, elsewhere):
            task.cancel()

    on_a_machine(body)


def test_when_it_dies_each_reads_by_itself() -> None:
    async def body(machine: Machine) -> None:
        process = machine.process()
        waiting = asyncio.ensure_future(process.changed(ONE, None))
        await asyncio.sleep(0.05)
        for client in list(machine.service._clients):
            client._close()
        await asyncio.sleep(0.05)
        assert machine.own.calls["read"] > 0
        machine.own.records |= {ONE: "here", TWO: "there"}
        assert await waiting == "here"
        assert await process.changed(TWO, None) == "there", "and from then on"
        process.say(ONE, "nobody hears it")

    on_a_machine(body)


def test_where_it_is_gone_from_the_start_too() -> None:
    async def body(machine: Machine) -> None:
        gone, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.close()
        machine.own.records[ONE] = "here"
        process = MachineWatcher(Watcher(machine.own), gone, {"name": "a"})
        assert await process.changed(ONE, None) == "here"
        await process.close()
        gone.close()

    on_a_machine(body)


@pytest.mark.parametrize("name", ["refusing", "no such store"])
def test_what_it_cannot_read_is_for_the_process_to_say(name: str) -> None:
    async def body(machine: Machine) -> None:
        machine.stores["refusing"] = Refusing()
        machine.own.records[ONE] = "here"
        assert await machine.process(name).changed(ONE, None) == "here"
        machine.own = Refusing()
        process = machine.process(name)
        with pytest.raises(RendezvousError, match="refused"):
            await process.changed(ONE, None)
        assert process.last_error is not None

    on_a_machine(body)


def test_a_record_too_long_for_a_message_is_read_by_the_process() -> None:
    async def body(machine: Machine) -> None:
        text = "x" * 1_000_000
        machine.own.records[ONE] = machine.stores["a"].records[ONE] = text
        assert await machine.process().changed(ONE, None) == text

    on_a_machine(body)


def test_nothing_is_read_for_who_no_longer_waits() -> None:
    async def body(machine: Machine) -> None:
        waiting = [asyncio.ensure_future(machine.process().changed(ONE, None)) for _ in range(3)]
        await asyncio.sleep(0.1)
        waiting[0].cancel()
        waiting[1].cancel()
        await machine.processes[2].close()
        await asyncio.sleep(0.1)
        (watcher,) = machine.service._watchers.values()
        assert not watcher._waiters
        waiting[2].cancel()

    on_a_machine(body)


def test_it_ends_with_the_last_process_that_could_ask() -> None:
    async def body(machine: Machine) -> None:
        copy = machine.control.dup()  # a fork's
        machine.control.close()
        await asyncio.sleep(0.05)
        assert not machine.running.done()
        copy.close()
        await asyncio.wait_for(machine.running, 5)

    on_a_machine(body)


def test_garbage_ends_nobody_but_its_sender() -> None:
    async def body(machine: Machine) -> None:
        waiting = asyncio.ensure_future(machine.process().changed(ONE, None))
        for packet in (b"{", b"[]", b"{}", json.dumps({"n": 1}).encode(), b'{"said": 1}'):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            socket.send_fds(machine.control, [b'{"name": "a"}'], [theirs.fileno()])
            theirs.close()
            ours.send(packet)
            await asyncio.sleep(0.02)
            ours.setblocking(False)
            assert ours.recv(1) == b""
            ours.close()
        socket.send_fds(machine.control, [b"no JSON"], [machine.control.fileno()])
        machine.control.send(b'{"name": "a"}')  # without a socket
        machine.stores["a"].records[ONE] = "here"
        assert await waiting == "here"

    on_a_machine(body)


def test_a_machine_reads_a_few_times_a_second_in_the_long_run() -> None:
    """Though somebody new begins to wait all the time, and wants to know at once."""
    from tests.support.virtual_loop import VirtualLoop

    async def main() -> tuple[int, int]:
        store = MemoryStore()
        watcher = Watcher(store)
        waiting: list[asyncio.Future[Any]] = []
        counts = []
        for _ in range(2):
            for _ in range(600):
                waiting.append(
                    asyncio.ensure_future(watcher.changed(Slot(f"{len(waiting)}", "0"), None))
                )
                await asyncio.sleep(0.1)
            counts.append(store.calls["read"])
        for task in waiting:
            task.cancel()
        await watcher.close()
        return counts[0], counts[1] - counts[0]

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        first, later = runner.run(main())
    assert first <= 60 * RATE + BURST
    assert later <= 60 * RATE + 1
