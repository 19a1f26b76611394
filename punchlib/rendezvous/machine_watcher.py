"""One reader of the store for all processes of a machine, so that waiting costs them nothing.

A process that waits by itself reads the store again and again: imports aside, most of what 145
waiting processes did was that, and the more of them there were the slower each read became. Here
one process (`WatchService`, which the node engine forks) reads for all of them, and they sleep
until it has news. What a process of this machine registers it also tells here, so two ends on one
machine meet without a read.

It is a convenience and never a condition: a process that loses it, or whose question it cannot
answer, reads the store by itself (`Watcher`).

The processes inherit `control`, one end of a Unix socket, from the engine: nobody else can be
asked, and nobody else can ask. Each sends one end of a socket pair of its own and what it takes to
reach its store; on that pair go JSON messages, one a packet:

    → {"n": 1, "slot": ["key", "label"], "seen": "…" | null, "fastest": 0.02}    what is waited for
    → {"drop": 1}                                                               not any more
    → {"slot": ["key", "label"], "said": "…"}                                   what we registered
    ← {"n": 1, "text": "…" | null}                        the record; null: ask the store yourself
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

from punchlib.errors import RendezvousError
from punchlib.rendezvous.store import Registered, RendezvousStore, Slot
from punchlib.rendezvous.watcher import FASTEST, Pace, Watcher

#: Bytes of the longest message; a longer one makes its sender do without.
_MAX = 1 << 18
#: Stores that are kept though nobody asks about them: making one's client takes 100 ms.
_KEPT = 4


class MachineWatcher:
    """The side of a process that waits. See `Watching`.

    Args:
        own: reads by itself, where the machine's watcher does not.
        control: from the engine.
        surroundings: what it takes to reach the store; `make_store` of the other side reads it.
    """

    def __init__(self, own: Watcher, control: socket.socket, surroundings: object) -> None:
        self._own = own
        self._loop = asyncio.get_running_loop()
        self._asked: dict[int, asyncio.Future[str | None]] = {}
        self._next = 0
        self._socket: socket.socket | None = None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            hello = json.dumps(surroundings).encode()
            flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
            try:
                socket.send_fds(control, [hello], [theirs.fileno()], flags)
            except OSError:
                ours.close()  # it is gone, or does not keep up
                return
        self._socket = ours
        self._loop.add_reader(ours, self._read)

    @property
    def last_error(self) -> RendezvousError | None:
        """The store's latest failure as we saw it ourselves."""
        return self._own.last_error

    async def changed(self, slot: Slot, seen: str | None, *, fastest: float = FASTEST) -> str:
        """As `Watcher.changed`."""
        self._next += 1
        number = self._next
        answer = self._asked[number] = self._loop.create_future()
        self._send({"n": number, "slot": slot, "seen": seen, "fastest": fastest})
        try:
            text = await answer
        except asyncio.CancelledError:
            self._send({"drop": number})
            raise
        finally:
            self._asked.pop(number, None)
        return await self._own.changed(slot, seen, fastest=fastest) if text is None else text

    def say(self, slot: Slot, text: str) -> None:
        """Tells those of this machine who wait for it what we have registered."""
        self._send({"slot": slot, "said": text})

    async def close(self) -> None:
        self._lose()
        await self._own.close()

    def _send(self, message: dict[str, object]) -> None:
        if self._socket is not None:
            try:
                self._socket.send(json.dumps(message).encode(), socket.MSG_NOSIGNAL)
            except OSError:
                self._lose()
        if self._socket is None:
            self._release()

    def _read(self) -> None:
        assert self._socket is not None
        for message in _messages(self._socket):
            if message is None:
                self._lose()
                return
            answer = self._asked.get(message["n"])
            if answer is not None and not answer.done():
                answer.set_result(message["text"])

    def _lose(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        self._release()

    def _release(self) -> None:
        """All who wait ask the store by themselves."""
        for answer in self._asked.values():
            if not answer.done():
                answer.set_result(None)


class Announced:
    """A store whose registrations are told to the machine's watcher. See `RendezvousStore`."""

    def __init__(self, store: RendezvousStore, watcher: MachineWatcher) -> None:
        self._store = store
        self._watcher = watcher
        self.ready = store.ready
        self.remove = store.remove

    async def register(
        self, mine: Slot, text: str, peer_label: str, *, expires: int, refuse_v1_peer: bool
    ) -> Registered:
        answer = await self._store.register(
            mine, text, peer_label, expires=expires, refuse_v1_peer=refuse_v1_peer
        )
        if answer.accepted:
            self._watcher.say(mine, text)
        return answer

    async def read(self, slots: Iterable[Slot]) -> dict[Slot, str]:
        return await self._store.read(slots)


class WatchService:
    """The side that reads. It ends when the last process that could ask has ended.

    Args:
        control: the other end of what the processes have.
        make_store: makes the store that a process's surroundings lead to.
    """

    def __init__(
        self, control: socket.socket, make_store: Callable[[Any], RendezvousStore]
    ) -> None:
        self._control = control
        self._make_store = make_store
        self._pace = Pace()
        self._watchers: dict[bytes, Watcher] = {}
        self._clients: dict[_Client, bytes] = {}
        self._ended = asyncio.Event()

    async def run(self) -> None:
        self._control.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._control, self._accept)
        await self._ended.wait()
        loop.remove_reader(self._control)
        for watcher in self._watchers.values():
            await watcher.close()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                hello, fds, _, _ = socket.recv_fds(self._control, _MAX, 1)
                if not hello:
                    self._ended.set()
                    return
                for fd in fds:
                    self._serve(fd, hello)

    def _serve(self, fd: int, hello: bytes) -> None:
        if hello not in self._watchers:
            try:
                made = Watcher(self._make_store(json.loads(hello)), self._pace)
            except Exception:
                os.close(fd)  # its process finds out what is wrong, and says it
                return
            self._forget_idle()
            self._watchers[hello] = made
        connection = socket.socket(fileno=fd)
        self._clients[_Client(connection, self._watchers[hello], self._leave)] = hello

    def _leave(self, client: _Client) -> None:
        del self._clients[client]

    def _forget_idle(self) -> None:
        for hello in [h for h in self._watchers if h not in self._clients.values()][:-_KEPT]:
            del self._watchers[hello]


class _Client:
    """One process that waits."""

    def __init__(
        self, connection: socket.socket, watcher: Watcher, leave: Callable[[_Client], None]
    ) -> None:
        self._connection = connection
        self._watcher = watcher
        self._leave = leave
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        connection.setblocking(False)
        self._loop.add_reader(connection, self._read)

    def _read(self) -> None:
        for message in _messages(self._connection):
            try:
                self._take(message)
            except (LookupError, TypeError):  # None, too: it has ended, or says what nobody means
                self._close()
                return

    def _take(self, message: Any) -> None:
        if "drop" in message:
            self._stop(message["drop"])
        elif "said" in message:
            self._watcher.tell(Slot(*message["slot"]), message["said"])
        else:
            number, slot = message["n"], Slot(*message["slot"])
            watching = self._watch(number, slot, message["seen"], message["fastest"])
            self._tasks[number] = self._loop.create_task(watching)

    async def _watch(self, number: int, slot: Slot, seen: str | None, fastest: float) -> None:
        text: str | None = None
        with contextlib.suppress(RendezvousError):
            text = await self._watcher.changed(slot, seen, fastest=fastest)
        del self._tasks[number]
        try:
            answer = json.dumps({"n": number, "text": text}).encode()
            self._connection.send(answer, socket.MSG_NOSIGNAL)
        except OSError:
            self._close()  # too long, or it does not read: it goes on by itself

    def _stop(self, number: int) -> None:
        task = self._tasks.pop(number, None)
        if task is not None:
            task.cancel()

    def _close(self) -> None:
        if self._connection.fileno() >= 0:
            self._loop.remove_reader(self._connection)
            self._connection.close()
            for number in list(self._tasks):
                self._stop(number)
            self._leave(self)


def _messages(connection: socket.socket) -> Iterable[Any]:
    """What has come, and None at the end."""
    while True:
        try:
            message = json.loads(connection.recv(_MAX))
        except BlockingIOError:
            return
        except (OSError, ValueError):  # "" is no JSON
            message = None
        yield message
        if message is None:
            return
