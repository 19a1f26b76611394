"""One store for all processes of a machine: what they see of it, and what when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ClassVar

import pytest

from punchlib.errors import RendezvousError, UsageError
from punchlib.rendezvous.machine_service import StoreService
from punchlib.rendezvous.machine_store import MachineStore
from punchlib.rendezvous.memory import MemoryStore
from punchlib.rendezvous.store import Registered, RendezvousStore, Slot
from punchlib.rendezvous.watcher import BURST, RATE, Watcher

ONE, TWO = Slot("key", "0"), Slot("key", "1")


class Refusing(MemoryStore):
    """Says what DynamoDB says to somebody without the right."""

    def _refuse(self) -> RendezvousError:
        error = RendezvousError("refused", next_step="ask for the right")
        error.code = "AccessDeniedException"
        return error

    async def register(self, *_: Any, **__: Any) -> Registered:
        raise self._refuse()

    async def read(self, slots: Iterable[Slot]) -> dict[Slot, str]:
        raise self._refuse()

    async def remove(self, *_: Any, **__: Any) -> None:
        raise self._refuse()


class Unusable(MemoryStore):
    """One whose client cannot be made."""

    async def ready(self) -> None:
        raise UsageError("no such profile")

    async def read(self, slots: Iterable[Slot]) -> dict[Slot, str]:
        raise UsageError("no such profile")


class Stuck(MemoryStore):
    """One that answers nobody; notes who has stopped waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped: list[str] = []

    async def _stick(self, what: str) -> Any:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.stopped.append(what)

    async def register(self, *_: Any, **__: Any) -> Registered:
        await self._stick("register")
        raise AssertionError

    async def read(self, slots: Iterable[Slot]) -> dict[Slot, str]:
        await self._stick("read")
        raise AssertionError


class Machine:
    """A service in this loop, and processes that ask it.

    Attributes:
        store: the service's.
        own: each process's, for when it must do without.
    """

    def __init__(self) -> None:
        self.store: MemoryStore = MemoryStore()
        self.own: MemoryStore = MemoryStore()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.service: StoreService = StoreService(theirs, _Of(self))
        self.running = asyncio.ensure_future(self.service.run())
        self.processes: list[MachineStore] = []

    def process(self) -> MachineStore:
        found = MachineStore(self.own, self.control, {})
        self.processes.append(found)
        return found

    @property
    def own_calls(self) -> int:
        """How often a process did something itself."""
        return sum(self.own.calls.values())

    async def end(self) -> None:
        for process in self.processes:
            await process.close()
        self.control.close()
        await asyncio.wait_for(self.running, 5)


class _Of:
    """A machine's store of the moment."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine.store, name)


def on_a_machine(body: Callable[[Machine], Awaitable[None]]) -> None:
    async def main() -> None:
        machine = Machine()
        try:
            await asyncio.wait_for(body(machine), 10)
        finally:
            await machine.end()

    asyncio.run(main())


def register(store: RendezvousStore, slot: Slot, text: str) -> Awaitable[Registered]:
    return store.register(slot, text, "1", expires=0, refuse_v1_peer=False)


def test_news_reach_who_waits_for_them() -> None:
    async def body(machine: Machine) -> None:
        store = machine.store
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
    class Unread(MemoryStore):
        read = Stuck.read
        _stick = Stuck._stick
        stopped: ClassVar[list[str]] = []

    async def body(machine: Machine) -> None:
        machine.store = Unread()
        waiting = asyncio.ensure_future(machine.process().changed(ONE, None))
        other = asyncio.ensure_future(machine.process().changed(TWO, None))
        await asyncio.sleep(0.05)
        assert await register(machine.process(), ONE, "here") == Registered(True, None)
        assert await waiting == "here"
        await asyncio.sleep(0.05)
        assert not other.done()
        other.cancel()

    on_a_machine(body)


def test_a_process_does_nothing_itself_while_the_machine_does_it() -> None:
    async def body(machine: Machine) -> None:
        process = machine.process()
        await process.ready()
        await register(process, ONE, "mine")
        machine.store.records[TWO] = "theirs"
        assert await process.read([ONE, TWO]) == {ONE: "mine", TWO: "theirs"}
        await process.remove(ONE, "mine", instead="gone")
        assert machine.store.records == {ONE: "gone", TWO: "theirs"}
        assert not machine.own_calls

    on_a_machine(body)


def test_more_at_once_than_a_socket_holds() -> None:
    async def body(machine: Machine) -> None:
        process = machine.process()
        slots = [Slot(f"key{n}", "0") for n in range(500)]
        await asyncio.gather(*(register(process, slot, "x" * 4000) for slot in slots))
        assert set(machine.store.records) == set(slots)
        assert not machine.own_calls

    on_a_machine(body)


def test_an_error_of_the_store_arrives_as_it_is() -> None:
    async def body(machine: Machine) -> None:
        machine.store = Refusing()
        process = machine.process()
        for work in (
            register(process, ONE, "x"),
            process.read([ONE]),
            process.remove(ONE, "x"),
            process.changed(ONE, None),
        ):
            with pytest.raises(RendezvousError) as raised:
                await work
            error = raised.value
            assert (error.message, error.next_step) == ("refused", "ask for the right")
            assert error.code == "AccessDeniedException"
        assert process.last_error is error
        assert not machine.own_calls

    on_a_machine(body)


def test_what_the_machine_cannot_do_is_for_the_process_to_try_and_to_say() -> None:
    async def body(machine: Machine) -> None:
        machine.store = Unusable()
        process = machine.process()
        machine.own.records[ONE] = "here"
        assert await process.read([ONE]) == {ONE: "here"}
        await process.ready()
        machine.own = Unusable()
        with pytest.raises(UsageError, match="no such profile"):
            await machine.process().ready()

    on_a_machine(body)


def test_who_stops_waiting_is_waited_for_by_nobody() -> None:
    async def body(machine: Machine) -> None:
        machine.store = stuck = Stuck()
        for work in (register(machine.process(), ONE, "x"), machine.process().read([ONE])):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await work
        leaving = machine.process()
        lost = asyncio.ensure_future(leaving.read([TWO]))
        await asyncio.sleep(0.05)
        assert stuck.stopped == ["register", "read"]
        await leaving.close()
        await asyncio.sleep(0.05)
        assert stuck.stopped == ["register", "read", "read"]
        await lost

    on_a_machine(body)


def test_when_it_dies_each_goes_on_by_itself() -> None:
    async def body(machine: Machine) -> None:
        machine.store = Stuck()
        process = machine.process()
        machine.own.records[ONE] = "here"
        waiting = asyncio.ensure_future(process.changed(ONE, "old"))
        registering = asyncio.ensure_future(register(process, TWO, "mine"))
        reading = asyncio.ensure_future(process.read([ONE]))
        await asyncio.sleep(0.05)
        assert not machine.own_calls
        machine.running.cancel()
        assert await waiting == "here"
        assert await registering == Registered(True, None)
        assert await reading == {ONE: "here"}
        await process.remove(TWO, "mine")
        assert machine.own.records == {ONE: "here"}
        with contextlib.suppress(asyncio.CancelledError):
            await machine.running
        later = machine.process()
        assert await later.read([ONE]) == {ONE: "here"}, "and who comes later"
        machine.running = asyncio.ensure_future(asyncio.sleep(0))

    on_a_machine(body)


def test_a_record_too_long_for_a_message_is_for_the_process_itself() -> None:
    async def body(machine: Machine) -> None:
        text = "x" * 1_000_000
        machine.own.records[ONE] = machine.store.records[ONE] = text
        assert await machine.process().changed(ONE, None) == text
        await register(machine.process(), TWO, text)
        assert machine.own.records[TWO] == text

    on_a_machine(body)


def test_nothing_is_read_for_who_no_longer_waits() -> None:
    async def body(machine: Machine) -> None:
        waiting = [asyncio.ensure_future(machine.process().changed(ONE, None)) for _ in range(3)]
        await asyncio.sleep(0.1)
        waiting[0].cancel()
        waiting[1].cancel()
        await machine.processes[2].close()
        await asyncio.sleep(0.1)
        assert not machine.service._watcher._waiters
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


def test_garbage_harms_nobody_but_its_sender() -> None:
    async def body(machine: Machine) -> None:
        waiting = asyncio.ensure_future(machine.process().changed(ONE, None))
        for packet in (b"{", b"[]", b"{}", b'{"n": 1}', b'{"n": 1, "do": "read"}', b'{"drop": []}'):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            socket.send_fds(machine.control, [b"{}"], [theirs.fileno()])
            theirs.close()
            ours.send(packet)
            await asyncio.sleep(0.02)
            ours.setblocking(False)
            assert ours.recv(99) in (b"", b'{"n": 1}')  # its end, or: do it yourself
            ours.close()
        machine.control.send(b"{}")  # without a socket
        machine.store.records[ONE] = "here"
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
