"""A rendezvous store in a process of its own, with the latency of a call as an argument.

DynamoDB takes 4–6 ms; a local emulator takes as long as this machine's load makes it, which would
be measured instead of the punching. One JSON object a line each way, over one connection a client.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
from collections.abc import Iterable
from typing import Any

from punchlib.rendezvous.memory import MemoryStore
from punchlib.rendezvous.store import Registered, Slot


class RemoteStore:
    """The client's end; see `RendezvousStore`."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        reader, self._writer = await asyncio.open_connection(*self._address, limit=1 << 24)
        self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            answer = json.loads(line)
            self._waiting.pop(answer["id"]).set_result(answer["result"])

    async def _call(self, **request: Any) -> Any:
        assert self._writer is not None, "the store was not opened"
        request["id"] = next(self._ids)
        self._waiting[request["id"]] = answer = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps(request).encode() + b"\n")
        return await answer

    async def ready(self) -> None:
        return

    async def register(
        self, mine: Slot, text: str, peer_label: str, *, expires: int, refuse_v1_peer: bool
    ) -> Registered:
        answer = await self._call(
            do="register", mine=mine, text=text, peer_label=peer_label, refuse=refuse_v1_peer
        )
        return Registered(*answer)

    async def read(self, slots: Iterable[Slot]) -> dict[Slot, str]:
        answer = await self._call(do="read", slots=list(slots))
        return {Slot(*slot): text for slot, text in answer}

    async def remove(self, mine: Slot, text: str, *, instead: str = "") -> None:
        await self._call(do="remove", mine=mine, text=text, instead=instead)


class Server:
    """Keeps the records.

    Args:
        latency: mean seconds of a call; each is drawn from half to one and a half times that.
    """

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._store = MemoryStore()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks: set[asyncio.Task[None]] = set()
        while line := await reader.readline():
            task = asyncio.create_task(self._answer(json.loads(line), writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        writer.close()

    async def _answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        delay = self._latency * random.uniform(0.5, 1.5)
        await asyncio.sleep(delay / 2)
        result = await self._do(request)
        await asyncio.sleep(delay / 2)
        writer.write(json.dumps({"id": request["id"], "result": result}).encode() + b"\n")

    async def _do(self, request: dict[str, Any]) -> Any:
        if request["do"] == "read":
            found = await self._store.read(Slot(*slot) for slot in request["slots"])
            return list(found.items())
        mine = Slot(*request["mine"])
        if request["do"] == "remove":
            return await self._store.remove(mine, request["text"], instead=request["instead"])
        answer = await self._store.register(
            mine,
            request["text"],
            request["peer_label"],
            expires=0,
            refuse_v1_peer=request["refuse"],
        )
        return [answer.accepted, answer.peer]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--latency", type=float, default=0.005)
    arguments = parser.parse_args()
    service = Server(arguments.latency)
    server = await asyncio.start_server(
        service.serve, arguments.host, arguments.port, limit=1 << 24
    )
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
