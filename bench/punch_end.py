"""One host's end of `bench/punch.py`: a process that establishes one connection after the other.

It lives through all trials, so that no interpreter's start is in a figure. Every trial has a
connector of its own, as every `pashlib` process would: its own STUN answers, its own polling.

Trials come on stdin, one JSON object a line: {"key", "sending", "at"}, `at` in monotonic time, and
results go to stdout likewise: {"key", "route", "attempt", "at", "why"}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any

import uvloop

from bench.punch_store import RemoteStore
from punchlib.config import Config, Route
from punchlib.core.handshake import Identity
from punchlib.errors import PunchError
from punchlib.net.connection import Spec
from punchlib.net.connector import Connector


class Worker:
    """Runs trials, each at its time."""

    def __init__(self, config: Config, store: RemoteStore) -> None:
        self._config = config
        self._store = store
        self._identity: asyncio.Future[Identity] = asyncio.get_running_loop().create_future()
        self._identity.set_result(Identity.generate())

    async def trial(self, key: str, sending: bool, at: float) -> None:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        result: dict[str, Any] = {"key": key, "began": time.monotonic(), "route": None, "why": ""}
        connector = Connector(self._config, self._store, identity=self._identity)
        me, peer = ("0", "1") if sending else ("1", "0")
        try:
            connection = await connector.establish(Spec(key, me, peer, sending=sending))
        except PunchError as error:
            result["why"] = str(error)
        else:
            result["at"] = time.monotonic()
            result["route"] = str(connection.route)
            result["attempt"] = connection.attempt
            result["how"] = connection.technique
            # The other end may be verifying still: a connection is closed when both are done.
            await asyncio.sleep(1.0)
            assert connection.channel is not None
            connection.channel.close()
            await connection.forget()
        finally:
            await connector.close()
        print(json.dumps(result), flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", help="ADDRESS:PORT")
    parser.add_argument("stun", help="ADDRESS:PORT,…")
    parser.add_argument("--on-lambda", action="store_true")
    parser.add_argument("--timeout", type=float, default=120.0)
    arguments = parser.parse_args()
    servers = [s.rpartition(":") for s in arguments.stun.split(",")]
    config = Config(
        stun_servers=tuple((host, int(port)) for host, _, port in servers),
        routes=(Route.HOST, Route.PUNCHED),
        timeout=arguments.timeout,
        on_lambda=arguments.on_lambda,
    )
    host, _, port = arguments.store.rpartition(":")
    store = RemoteStore(host, int(port))
    await store.open()
    worker = Worker(config, store)
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    print(json.dumps("ready"), flush=True)
    async with asyncio.TaskGroup() as tasks:
        while line := await reader.readline():
            tasks.create_task(worker.trial(**json.loads(line)))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
