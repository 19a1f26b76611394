"""A network of its own in which every connection between two ends goes through an injection.

The ends are real programs and know nothing of it: nftables redirects what they connect to, and
SO_ORIGINAL_DST says where they wanted to go. An end is known by the port that it listens on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from tests.support.fault_proxy import Fault, Injection
from tests.support.netlab_ns import Namespace, namespace

SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h
#: What the gate's own connections come from, so that they are not redirected to it again.
GATE_ADDRESS = "127.0.0.2"
#: Seconds for an end to say whom it dials; it does so before it dials.
INTRODUCTION = 20.0
_CLONE_NEWNET = 0x40000000
_RULES = f"""
table ip gate {{{{
    chain output {{{{
        type nat hook output priority -100
        ip saddr != {GATE_ADDRESS} ip daddr 127.0.0.1 tcp dport != {{{{ {{spared}} }}}} \
            redirect to :{{port}}
    }}}}
}}}}
"""

T = TypeVar("T")


@contextlib.contextmanager
def private_network() -> Iterator[Namespace]:
    """The calling thread, and all that it starts meanwhile, is in a network namespace of its own.

    Raises:
        OSError: that takes root.
    """
    with namespace("faults") as ns:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = os.open(ns.path, os.O_RDONLY | os.O_CLOEXEC)
            _enter(there)
            os.close(there)
            try:
                yield ns
            finally:
                _enter(home)
        finally:
            os.close(home)


def _enter(fd: int) -> None:
    # os.setns() came with Python 3.12.
    if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class FaultGate:
    """Takes what is redirected to it and hands it to the injection of its pair of ends."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._owners: dict[int, asyncio.Future[tuple[Injection, bool]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])

    @contextlib.contextmanager
    def running(self, ns: Namespace, *spared: int) -> Iterator[FaultGate]:
        """Redirects every connection in `ns` but those to the ports of `spared`."""
        self._thread.start()
        try:
            ns.nft(_RULES.format(spared=", ".join(map(str, (self.port, *spared))), port=self.port))
            serving = asyncio.run_coroutine_threadsafe(self._serve(), self._loop)
            yield self
            serving.cancel()
            self._run(self._end())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._listener.close()

    @contextlib.contextmanager
    def injection(self, fault: Fault) -> Iterator[Pass]:
        """The fault that a pair of ends is to meet; its connections are closed after."""
        injection = Injection(fault, source=GATE_ADDRESS)
        introduced = Pass(self, injection)
        try:
            yield introduced
        finally:
            self._run(self._forget(introduced))

    def introduce(self, port: int, injection: Injection, forward: bool) -> None:
        """Who dials `port` belongs to `injection`; `forward`: the dialler is who sends."""

        def settle() -> None:
            if not (owner := self._owner(port)).done():
                owner.set_result((injection, forward))

        self._loop.call_soon_threadsafe(settle)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def _owner(self, port: int) -> asyncio.Future[tuple[Injection, bool]]:
        return self._owners.setdefault(port, self._loop.create_future())

    async def _serve(self) -> None:
        while True:
            near, _ = await self._loop.sock_accept(self._listener)
            task = self._loop.create_task(self._admit(near))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _admit(self, near: socket.socket) -> None:
        raw = near.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
        _, port, address = struct.unpack_from("!HH4s", raw)
        try:
            async with asyncio.timeout(INTRODUCTION):
                injection, forward = await asyncio.shield(self._owner(port))
        except TimeoutError:
            near.close()
        else:
            await injection.carry(near, (socket.inet_ntoa(address), port), forward=forward)

    async def _forget(self, introduced: Pass) -> None:
        # The next end to get this port is another.
        for port in introduced.ports:
            self._owners.pop(port, None)
        await introduced.injection.close()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Pass:
    """What a pair of ends is known by at the gate.

    Attributes:
        injection: what its connections meet.
        ports: those that it has named.
    """

    def __init__(self, gate: FaultGate, injection: Injection) -> None:
        self._gate = gate
        self.injection = injection
        self.ports: list[int] = []

    def listens(self, port: int, *, sending: bool) -> None:
        """The end that sends, or the one that receives, listens on this port; may be said twice."""
        self.ports.append(port)
        self._gate.introduce(port, self.injection, not sending)
