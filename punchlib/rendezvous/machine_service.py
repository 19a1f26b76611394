"""The machine's store, the side that serves (`machine_store` has the messages).

    engine ─fork→ dispatcher ─fork→ a service for each way to a store

Each service is a process of its own, with the environment of those whom it serves and of nobody
else: botocore reads credentials again when they expire.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from punchlib.errors import PunchError, RendezvousError
from punchlib.rendezvous.machine_store import MAX_MESSAGE, Packets
from punchlib.rendezvous.store import RendezvousStore, Slot
from punchlib.rendezvous.watcher import Watcher

#: Seconds for which a service stays though it has nobody to serve.
IDLE = 20.0


def dispatch(control: socket.socket, serve: Callable[[socket.socket, Any], None]) -> None:
    """Hands each process on to the service of its way, until the last that could ask has ended.

    For a process of its own, without threads.

    Args:
        control: the other end of what the processes have.
        serve: runs a service, in a fork: on its own control, and with what leads to its store.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # services are reaped by the kernel
    services: dict[bytes, socket.socket] = {}
    while True:
        way, fds, _, _ = socket.recv_fds(control, MAX_MESSAGE, 1)
        if not way:
            return
        for fd in fds:
            # Where it does not go well the process finds its socket closed, and does without.
            with contextlib.suppress(OSError):
                if way not in services or not _hand_on(services[way], fd):
                    services[way] = _start(serve, way)
                    _hand_on(services[way], fd)
            os.close(fd)


def _hand_on(service: socket.socket, fd: int) -> bool:
    """Whether the service is still there."""
    try:
        socket.send_fds(service, [b"\0"], [fd], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _start(serve: Callable[[socket.socket, Any], None], way: bytes) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        if os.fork() == 0:
            in_a_fork(theirs, lambda control: serve(control, json.loads(way)))
    return ours


def in_a_fork(control: socket.socket, body: Callable[[socket.socket], None]) -> NoReturn:
    """Runs `body` in this process, a fresh fork, with no other descriptor but the standard ones."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Nothing of the parent may live on here, above all no socket that listens.
        os.dup2(control.fileno(), 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        body(socket.socket(fileno=3))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


class StoreService:
    """Serves all who reach one store in the same way. It ends when there is nobody to serve.

    Args:
        control: brings the sockets of the processes.
        store: what they share.
        idle: seconds for which it stays without any.
    """

    def __init__(
        self, control: socket.socket, store: RendezvousStore, *, idle: float = IDLE
    ) -> None:
        self._control = control
        self._store = store
        self._idle = idle
        self._watcher = Watcher(store)
        self._clients: set[_Client] = set()
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._leaving = self._loop.call_later(idle, self._ended.set)

    async def run(self) -> None:
        self._control.setblocking(False)
        self._loop.add_reader(self._control, self._accept)
        try:
            await self._ended.wait()
        finally:
            self._loop.remove_reader(self._control)
            self._control.close()  # who comes now gets another service
            for client in list(self._clients):
                client.close()
            self._leaving.cancel()
            await self._watcher.close()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                said, fds, _, _ = socket.recv_fds(self._control, 1, 1)
                if not said:
                    self._ended.set()
                    return
                for fd in fds:
                    self._leaving.cancel()
                    connection = socket.socket(fileno=fd)
                    self._clients.add(_Client(connection, self._work, self._leave))

    def _leave(self, client: _Client) -> None:
        self._clients.discard(client)
        if not self._clients:
            self._leaving = self._loop.call_later(self._idle, self._ended.set)

    async def _work(self, asked: dict[str, Any]) -> object:
        match asked["do"]:
            case "ready":
                await self._store.ready()
                return True
            case "register":
                return await self._register(
                    Slot(*asked["slot"]),
                    *(asked[name] for name in ("text", "peer", "expires", "refuse")),
                )
            case "read":
                found = await self._store.read([Slot(*slot) for slot in asked["slots"]])
                return [(*slot, text) for slot, text in found.items()]
            case "remove":
                slot = Slot(*asked["slot"])
                await self._store.remove(slot, asked["text"], instead=asked["instead"])
                return True
            case "changed":
                slot = Slot(*asked["slot"])
                return await self._watcher.changed(slot, asked["seen"], fastest=asked["fastest"])
        return None

    async def _register(
        self, mine: Slot, text: str, peer: str, expires: int, refuse: bool
    ) -> tuple[bool, str | None]:
        answer = await self._store.register(
            mine, text, peer, expires=expires, refuse_v1_peer=refuse
        )
        if answer.accepted:
            self._watcher.tell(mine, text)
        return answer.accepted, answer.peer


class _Client:
    """One process that is served."""

    def __init__(
        self,
        connection: socket.socket,
        work: Callable[[dict[str, Any]], Awaitable[object]],
        leave: Callable[[_Client], None],
    ) -> None:
        self._work = work
        self._leave = leave
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._packets = Packets(connection, self._take, self._ended)
        self.close = self._packets.close

    def _take(self, message: Any) -> None:
        if "drop" in message:
            if (task := self._tasks.get(message["drop"])) is not None:
                task.cancel()
            return
        number = message["n"]
        task = self._tasks[number] = asyncio.ensure_future(self._answer(number, message))
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    async def _answer(self, number: int, message: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"n": number}
        try:
            answer["is"] = await self._work(message)
        except RendezvousError as error:
            fields = ("message", "next_step", "code")
            answer["error"] = {name: getattr(error, name) for name in fields}
        except PunchError:
            pass  # the process meets the same by itself, and says it
        except Exception:
            traceback.print_exc()
        self._packets.send(answer)

    def _ended(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()
        self._leave(self)
