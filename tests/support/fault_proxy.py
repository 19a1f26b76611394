"""A TCP forwarder on loopback that does one bad thing at a chosen byte."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass


class Kind(enum.Enum):
    """What goes wrong."""

    NONE = "nothing"
    KILL = "both connections are closed, as when a process dies"
    RESET = "both connections are reset"
    BLACKHOLE = "from there on nothing passes, either way, and nobody is told"
    DELAY = "nothing passes for a while, then all of it"
    TRUNCATE = "that direction ends; the other goes on"
    FLIP = "one bit arrives changed"
    DUPLICATE = "a second connection brings the same bytes again"


@dataclass(frozen=True)
class Fault:
    """One injection.

    Attributes:
        kind: what happens.
        at: at which byte of the direction.
        forward: in the direction of who connected to the proxy.
        delay: seconds, for DELAY.
        bit: which bit, for FLIP.
    """

    kind: Kind
    at: int = 0
    forward: bool = True
    delay: float = 0.0
    bit: int = 0


class FaultProxy:
    """Forwards connections to a target; the first one suffers the fault.

    Attributes:
        address: where it listens.
        carried: bytes that came in, by direction (True is forward).
        struck: the fault's byte has been reached.
        recorded: all bytes of both directions, with `record`.
    """

    def __init__(
        self,
        target: tuple[str, int],
        fault: Fault,
        *,
        delay: float = 0.0,
        record: bool = False,
    ) -> None:
        """`delay` is the way's length each way, in seconds; for a few bytes only."""
        self._delay = delay
        self._record = record
        self.recorded = bytearray()
        self._target = target
        self._fault = fault
        self._tasks: set[asyncio.Task[None]] = set()
        self._forwards: set[asyncio.Task[None]] = set()
        self._open: list[socket.socket] = []
        self._dark = False
        self.carried = {True: 0, False: 0}
        self.struck = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FaultProxy]:
        """Serves inside the context; everything is closed after."""
        self._start(self._serve())
        try:
            yield self
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for sock in (self._listener, *self._open):
                sock.close()

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        return task

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            near, _ = await loop.sock_accept(self._listener)
            near.setblocking(False)
            self._open.append(near)
            far = await self._connect()
            twin = await self._connect() if self._fault.kind is Kind.DUPLICATE else None
            for work in (
                self._forward(near, far, True, twin),
                self._forward(far, near, False, None),
            ):
                self._forwards.add(self._start(work))

    async def _connect(self) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        self._open.append(sock)
        await asyncio.get_running_loop().sock_connect(sock, self._target)
        return sock

    async def _forward(
        self, near: socket.socket, far: socket.socket, forward: bool, twin: socket.socket | None
    ) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(near, 65536):
                if self._record:
                    self.recorded += data
                if self._delay:
                    loop.call_later(self._delay, far.send, data)
                    continue
                start = self.carried[forward]
                self.carried[forward] += len(data)
                if self._dark:
                    continue
                cut = self._fault.at - start
                if self._fault.forward is forward and 0 <= cut < len(data):
                    self.struck = True
                    data = await self._strike(near, far, data, cut)
                await loop.sock_sendall(far, data)
                if twin is not None:
                    with contextlib.suppress(OSError):
                        await loop.sock_sendall(twin, data)
        if not self._dark:
            await asyncio.sleep(self._delay)
            with contextlib.suppress(OSError):
                far.shutdown(socket.SHUT_WR)

    async def _strike(
        self, near: socket.socket, far: socket.socket, data: bytes, cut: int
    ) -> bytes:
        """Does the bad thing; what comes back still goes on."""
        kind = self._fault.kind
        if kind is Kind.DELAY:
            await asyncio.sleep(self._fault.delay)
        elif kind is Kind.FLIP:
            changed = bytearray(data)
            changed[cut] ^= 1 << self._fault.bit
            return bytes(changed)
        elif kind in (Kind.KILL, Kind.RESET, Kind.TRUNCATE, Kind.BLACKHOLE):
            await asyncio.get_running_loop().sock_sendall(far, data[:cut])
            if kind is Kind.BLACKHOLE:
                self._dark = True
            elif kind is Kind.TRUNCATE:
                far.shutdown(socket.SHUT_WR)
                near.shutdown(socket.SHUT_RD)
            else:
                self._dark = True
                self._cut(near, far, reset=kind is Kind.RESET)
            return b""
        return data

    def _cut(self, *socks: socket.socket, reset: bool) -> None:
        if reset:
            # The loop keeps a socket open for as long as somebody waits for it.
            for task in self._forwards - {asyncio.current_task()}:
                task.cancel()
            asyncio.get_running_loop().call_later(0.001, self._reset, *socks)
            return
        for sock in socks:
            # What close() of a dead process does: an end both ways at once.
            sock.shutdown(socket.SHUT_RDWR)

    def _reset(self, *socks: socket.socket) -> None:
        for sock in socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._open.remove(sock)
            sock.close()
