"""The machine's store: one process talks to DynamoDB for all others, and they to it.

A process that registers, reads and waits by itself pays for botocore: 7 MB of memory that it no
longer shares, and most of its processor time. On a machine with 145 of them they slow each other
down until nobody meets in time. Here one process (`machine_service`, which the node engine forks)
does it for all; what one of them registers another one hears without a read.

It is a convenience and never a condition: a process that loses it, or whose question it leaves
unanswered, goes on by itself. What had been asked may then be done twice, as it may be by any call
whose answer is lost.

The processes inherit `control`, one end of a Unix socket, from the engine: nobody else can be
asked, and nobody else can ask. Each sends one end of a socket pair of its own and what it takes to
reach its store; on that pair go JSON messages, one a packet:

    → {"n": 1, "do": "ready"}
    → {"n": 2, "do": "register", "slot": ["key", "label"], "text": "…", "peer": "label",
       "expires": 1790000000, "refuse": true}                                is: [accepted, "…"]
    → {"n": 3, "do": "read", "slots": [["key", "label"]]}                    is: [["key", …, "…"]]
    → {"n": 4, "do": "remove", "slot": ["key", "label"], "text": "…", "instead": ""}
    → {"n": 5, "do": "changed", "slot": ["key", "label"], "seen": "…", "fastest": 0.02}    is: "…"
    → {"drop": 5}                                                            not any more
    ← {"n": 1, "is": true}                                                   the answer
    ← {"n": 2, "error": {"message": "…", "next_step": "…", "code": "…"}}     the store's
    ← {"n": 3}                                                               do it yourself
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from punchlib.errors import RendezvousError
from punchlib.rendezvous.store import Registered, RendezvousStore, Slot
from punchlib.rendezvous.watcher import FASTEST, Watcher

#: Bytes of the longest message; a longer one makes its sender do without.
MAX_MESSAGE = 1 << 18


class MachineStore:
    """The side of the processes. See `RendezvousStore` and `Watching`.

    Args:
        own: the same store, for when the machine's is lost.
        control: from the engine.
        way: what it takes to reach the store, as plain data; the other side makes one from it.

    Attributes:
        last_error: as `Watcher` has it.
    """

    def __init__(self, own: RendezvousStore, control: socket.socket, way: object) -> None:
        self.last_error: RendezvousError | None = None
        self._own = own
        self._watcher = Watcher(own)
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._packets: Packets | None = None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        with theirs:
            try:
                socket.send_fds(control, [json.dumps(way).encode()], [theirs.fileno()], flags)
            except OSError:
                ours.close()  # it is gone, or does not keep up
                return
        self._packets = Packets(ours, self._take, self._lose)

    async def ready(self) -> None:
        if await self._ask("ready") is None:
            await self._own.ready()

    async def register(
        self, mine: Slot, text: str, peer_label: str, *, expires: int, refuse_v1_peer: bool
    ) -> Registered:
        refuse = refuse_v1_peer
        found = await self._ask(
            "register", slot=mine, text=text, peer=peer_label, expires=expires, refuse=refuse
        )
        if found is None:
            return await self._own.register(
                mine, text, peer_label, expires=expires, refuse_v1_peer=refuse
            )
        return Registered(*found)

    async def read(self, slots: Iterable[Slot]) -> dict[Slot, str]:
        slots = list(slots)
        found = await self._ask("read", slots=slots)
        if found is None:
            return await self._own.read(slots)
        return {Slot(key, label): text for key, label, text in found}

    async def remove(self, mine: Slot, text: str, *, instead: str = "") -> None:
        if await self._ask("remove", slot=mine, text=text, instead=instead) is None:
            await self._own.remove(mine, text, instead=instead)

    async def changed(self, slot: Slot, seen: str | None, *, fastest: float = FASTEST) -> str:
        """As `Watcher.changed`."""
        self.last_error = None
        try:
            text: str | None = await self._ask("changed", slot=slot, seen=seen, fastest=fastest)
            if text is None:
                text = await self._watcher.changed(slot, seen, fastest=fastest)
        except RendezvousError as error:
            self.last_error = error
            raise
        return text

    async def close(self) -> None:
        if self._packets is not None:
            self._packets.close()
        await self._watcher.close()

    async def _ask(self, do: str, **what: object) -> Any:
        """The answer; None where it is for us to do."""
        if self._packets is None:
            return None
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self._packets.send({"n": number, "do": do, **what})
        try:
            found = await answer
        except asyncio.CancelledError:
            if self._packets is not None:
                self._packets.send({"drop": number})
            raise
        finally:
            self._asked.pop(number, None)
        if "error" in found:
            raise _error(**found["error"])
        return found.get("is")

    def _take(self, message: Any) -> None:
        answer = self._asked.get(message["n"])
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _lose(self) -> None:
        """From now on we do everything ourselves."""
        self._packets = None
        for answer in self._asked.values():
            if not answer.done():
                answer.set_result({})


def _error(message: str, next_step: str, code: str) -> RendezvousError:
    error = RendezvousError(message, next_step=next_step)
    error.code = code
    return error


class Packets:
    """JSON messages over a seqpacket socket, both ways, on the running loop.

    Args:
        connection: belongs to it from now on.
        take: is given each message; where it raises LookupError or TypeError, nobody knows what
            the message means, and that is the end.
        ended: is called once, when the other end has gone or cannot be understood, or at `close`.
    """

    def __init__(
        self, connection: socket.socket, take: Callable[[Any], None], ended: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._take_message = take
        self._ended = ended
        self._outbox: deque[bytes] = deque()
        self._loop = asyncio.get_running_loop()
        connection.setblocking(False)
        self._loop.add_reader(connection, self._read)

    def send(self, message: object) -> None:
        """Sends it, after those before it; never waits."""
        self._outbox.append(json.dumps(message).encode())
        if len(self._outbox) == 1:
            self._write()

    def close(self) -> None:
        if self._connection.fileno() >= 0:
            self._loop.remove_reader(self._connection)
            self._loop.remove_writer(self._connection)
            self._connection.close()
            self._outbox.clear()
            self._ended()

    def _write(self) -> None:
        try:
            while self._outbox:
                self._connection.send(self._outbox[0], socket.MSG_NOSIGNAL)
                self._outbox.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._connection, self._write)
        except OSError:
            self.close()  # it has gone, or the message is too long
        else:
            self._loop.remove_writer(self._connection)

    def _read(self) -> None:
        while self._connection.fileno() >= 0:
            try:
                self._take_message(json.loads(self._connection.recv(MAX_MESSAGE)))
            except BlockingIOError:
                return
            except (OSError, ValueError, LookupError, TypeError):  # "", the end, is no JSON
                self.close()
