"""Connectors of several processes: one rendezvous, one STUN server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import uvloop

from punchlib.config import Config
from punchlib.core.frames import FrameType
from punchlib.core.handshake import Identity
from punchlib.net.connection import Connection, Spec
from punchlib.net.connector import Connector
from punchlib.rendezvous.memory import MemoryStore
from punchlib.rendezvous.store import RendezvousStore
from punchlib.runtime.connection_lines import lines_of
from tests.support.coturn import coturn

SEND = Spec("k", "0", "1", sending=True)
RECV = Spec("k", "1", "0", sending=False)
IDENTITY = Identity.generate()


@pytest.fixture(scope="module")
def stun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    with coturn(tmp_path_factory.mktemp("coturn")) as server:
        yield server


@dataclass
class World:
    """One rendezvous, one STUN server, any number of processes' connectors."""

    config: Config
    store: MemoryStore = field(default_factory=MemoryStore)
    lines: list[str] = field(default_factory=list)
    connectors: list[Connector] = field(default_factory=list)

    def connector(
        self,
        *,
        store: RendezvousStore | None = None,
        wall: Callable[[], float] = time.time,
        **changes: Any,
    ) -> Connector:
        identity: asyncio.Future[Identity] = asyncio.get_running_loop().create_future()
        identity.set_result(IDENTITY)
        made = Connector(
            replace(self.config, **changes),
            store or self.store,
            identity=identity,
            wall=wall,
            report=lambda event: self.lines.extend(lines_of(event)),
        )
        self.connectors.append(made)
        return made

    async def close(self) -> None:
        for connector in self.connectors:
            await connector.close()


@pytest.fixture
def world(stun: tuple[str, int]) -> World:
    return World(Config(stun_servers=(stun,), timeout=8.0, stun_timeout=4.0))


def run(world: World, main: Callable[[], Awaitable[None]]) -> None:
    async def wrapped() -> None:
        try:
            await main()
        finally:
            await world.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(wrapped())


async def pair(a: Awaitable[Connection], b: Awaitable[Connection]) -> tuple[Connection, Connection]:
    first, second = await asyncio.gather(a, b)
    return first, second


async def assert_talk(sender: Connection, receiver: Connection) -> None:
    assert sender.channel is not None and receiver.channel is not None
    await sender.channel.send(FrameType.DATA, b"hello")
    kind, payload = await receiver.channel.receive()
    assert (kind, bytes(payload)) == (FrameType.DATA, b"hello")
    for connection in (sender, receiver):
        assert connection.channel is not None
        connection.channel.close()
        await connection.forget()
