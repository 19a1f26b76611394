"""Two ends of which one hardly ever runs: attempts become slower, not more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
import uvloop

from punchlib.config import Config, Route
from punchlib.core.handshake import Identity
from punchlib.net.connection import Connection, Spec
from punchlib.net.connector import Connector
from punchlib.rendezvous.memory import MemoryStore
from tests.support.coturn import coturn

SEND, RECV = Spec("k", "0", "1", sending=True), Spec("k", "1", "0", sending=False)
#: Seconds for which the starved end stands still, and for which it then runs.
STANDS, RUNS = 4.0, 0.05


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    with coturn(tmp_path_factory.mktemp("coturn")) as server:
        yield Config(stun_servers=(server,), timeout=240.0, routes=(Route.HOST, Route.PUNCHED))


class End(threading.Thread):
    """One end, on a loop of its own."""

    def __init__(self, config: Config, store: MemoryStore, spec: Spec, *, starved: bool) -> None:
        super().__init__()
        self.config, self.store, self.spec, self.starved = config, store, spec, starved
        self.connection: Connection | None = None
        self.done = threading.Event()

    def run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._main())
        finally:
            self.done.set()

    async def _main(self) -> None:
        identity: asyncio.Future[Identity] = asyncio.get_running_loop().create_future()
        identity.set_result(Identity.generate())
        connector = Connector(self.config, self.store, identity=identity)
        starving = asyncio.ensure_future(self._starve())
        try:
            self.connection = await connector.establish(self.spec)
            # The other end may be verifying still.
            await asyncio.sleep(2 * STANDS)
            self.connection.close()
        finally:
            starving.cancel()
            await connector.close()

    async def _starve(self) -> None:
        while self.starved and self.connection is None:
            await asyncio.sleep(RUNS)
            time.sleep(STANDS)


@pytest.mark.slow
@pytest.mark.parametrize("starved", [SEND, RECV], ids=str)
def test_one_attempt_is_enough(config: Config, starved: Spec) -> None:
    """The other end used to give up after 3.5 s, and both made attempt after attempt, up to S3."""
    store = MemoryStore()
    ends = [End(config, store, spec, starved=spec is starved) for spec in (SEND, RECV)]
    for end in ends:
        end.start()
    for end in ends:
        end.join(270)
    made = [end.connection for end in ends]
    assert all(made), made
    assert [c.attempt for c in made if c] == [1, 1]
    assert store.calls["register"] == 2
