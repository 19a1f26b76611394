"""The machine's store as processes: a service for each way, its end, and what comes after it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from punchlib.rendezvous.machine_store import MachineStore
from punchlib.rendezvous.memory import MemoryStore
from punchlib.rendezvous.store import Registered, Slot
from tests.support.jobtools import wait_until

#: A dispatcher whose services keep their records in their own memory.
PROGRAM = """
import asyncio, os, socket, sys
from punchlib.rendezvous.machine_service import StoreService, dispatch
from punchlib.rendezvous.memory import MemoryStore

def serve(control, way):
    assert sorted(os.listdir("/proc/self/fd"))[:4] == ["0", "1", "2", "3"], "nothing inherited"
    async def run():
        await StoreService(control, MemoryStore(), idle=way["idle"]).run()
    asyncio.run(run())

dispatch(socket.socket(fileno=int(sys.argv[1])), serve)
"""

ONE, TWO = Slot("key", "0"), Slot("key", "1")


class Dispatcher:
    def __init__(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-c", PROGRAM, str(theirs.fileno())]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])

    def services(self) -> set[int]:
        pid = self.process.pid
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    @contextlib.asynccontextmanager
    async def store(self, name: str = "a", *, idle: float = 60) -> AsyncIterator[MachineStore]:
        made = MachineStore(MemoryStore(), self.control, {"name": name, "idle": idle})
        try:
            yield made
        finally:
            await made.close()


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    made = Dispatcher()
    yield made
    made.control.close()
    made.process.wait(30)


def in_a_loop(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(body(), 60)

    asyncio.run(main())


def ended(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def register(store: MachineStore, slot: Slot, text: str, peer: str) -> Registered:
    return await store.register(slot, text, peer, expires=0, refuse_v1_peer=False)


def test_one_way_is_one_service_and_another_way_another(dispatcher: Dispatcher) -> None:
    async def body() -> None:
        async with dispatcher.store() as one, dispatcher.store() as two, dispatcher.store("b") as b:
            assert await register(one, ONE, "mine", "1") == Registered(True, None)
            assert await register(two, TWO, "yours", "0") == Registered(True, "mine")
            assert await register(b, TWO, "elsewhere", "0") == Registered(True, None)
            assert len(dispatcher.services()) == 2

    in_a_loop(body)


def test_one_that_is_killed_is_replaced_for_who_comes_later(dispatcher: Dispatcher) -> None:
    async def body() -> None:
        async with dispatcher.store() as early:
            await register(early, ONE, "before", "1")
            waiting = asyncio.ensure_future(early.changed(TWO, None))
            (service,) = dispatcher.services()
            os.kill(service, signal.SIGKILL)
            wait_until(lambda: service not in dispatcher.services())
            async with dispatcher.store() as late, dispatcher.store() as later:
                assert await register(late, ONE, "after", "1") == Registered(True, None)
                assert await register(later, TWO, "theirs", "0") == Registered(True, "after")
                assert await register(early, TWO, "alone", "0") == Registered(True, None)
            assert await waiting == "alone", "its own store says"

    in_a_loop(body)


def test_one_that_nobody_needs_ends(dispatcher: Dispatcher) -> None:
    async def body() -> None:
        async with dispatcher.store(idle=0.1) as store:
            await store.ready()
            (service,) = dispatcher.services()
            await asyncio.sleep(0.5)
            assert dispatcher.services() == {service}, "somebody is served"
        wait_until(lambda: not dispatcher.services())
        async with dispatcher.store(idle=0.1) as store:
            assert await register(store, ONE, "mine", "1") == Registered(True, None)

    in_a_loop(body)


def test_all_end_with_who_could_ask(dispatcher: Dispatcher) -> None:
    async def body() -> None:
        async with dispatcher.store() as store:
            await store.ready()
            services = dispatcher.services()
        dispatcher.control.close()
        assert dispatcher.process.wait(30) == 0
        for pid in services:
            wait_until(partial(ended, pid))

    in_a_loop(body)


def test_a_dispatcher_that_is_killed_takes_its_services_along(dispatcher: Dispatcher) -> None:
    async def body() -> None:
        async with dispatcher.store() as store:
            await store.ready()
            (service,) = dispatcher.services()
            dispatcher.process.kill()
            dispatcher.process.wait(30)
            wait_until(partial(ended, service))
            assert await register(store, ONE, "alone", "1") == Registered(True, None)

    in_a_loop(body)
