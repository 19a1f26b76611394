"""TCP connections on loopback through somebody who does one bad thing at a chosen byte."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field

#: The payloads into which faults are drawn.
SIZES = (0, 1, 127, 128, 129, 5000, 65535, 65536, 300_001, (1 << 20) - 1, 1 << 20, (1 << 20) + 1)


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
        forward: in the direction of who connected, or of who is said to speak forward.
        delay: seconds, for DELAY.
        bit: which bit, for FLIP.
        every: every connection that comes so far suffers it, and not only the first.
    """

    kind: Kind
    at: int = 0
    forward: bool = True
    delay: float = 0.0
    bit: int = 0
    every: bool = False


@dataclass(eq=False)
class _Passage:
    """One connection's two halves.

    Attributes:
        near: of who connected.
        far: to the target.
        twin: a second one to the target, for DUPLICATE.
        forward: what comes from `near` flows forward.
        carried: bytes that came in, by direction (True is forward).
        dark: nothing passes any more.
        closed: it has been reset.
    """

    near: socket.socket
    far: socket.socket
    twin: socket.socket | None
    forward: bool
    carried: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    dark: bool = False
    closed: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Injection:
    """All connections between two ends; the first that reaches the fault's byte suffers it.

    Attributes:
        struck_at: when that was (time.monotonic()); None while it was not.
        recorded: all bytes of both directions, with `record`.
    """

    def __init__(
        self, fault: Fault, *, source: str = "", delay: float = 0.0, record: bool = False
    ) -> None:
        """Args:
        fault: what happens.
        source: the address that the connections to the target come from; "" for any.
        delay: the way's length each way, in seconds; for a few bytes only.
        record: keep what passes.
        """
        self._fault = fault
        self._source = source
        self._delay = delay
        self._record = record
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[socket.socket] = set()
        self.recorded = bytearray()
        self.struck_at: float | None = None

    @property
    def struck(self) -> bool:
        return self.struck_at is not None

    async def carry(
        self, near: socket.socket, target: tuple[str, int], *, forward: bool = True
    ) -> None:
        """Starts to carry an accepted connection on to its target.

        `forward`: whether what comes from `near` flows forward. Nobody at the target: it is reset.
        """
        near.setblocking(False)
        self._open.add(near)
        try:
            far = await self._connect(target)
        except OSError:
            self._reset(near)
            return
        twin = None
        if self._fault.kind is Kind.DUPLICATE:
            with contextlib.suppress(OSError):
                twin = await self._connect(target)
        way = _Passage(near, far, twin, forward)
        for work in (self._forward(way, near, far), self._forward(way, far, near)):
            way.tasks.append(self.start(work))

    def start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Runs it until `close()`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        return task

    async def close(self) -> None:
        """Ends everything, and closes every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sock in self._open:
            sock.close()

    async def _connect(self, target: tuple[str, int]) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        self._open.add(sock)
        if self._source:
            sock.bind((self._source, 0))
        await asyncio.get_running_loop().sock_connect(sock, target)
        return sock

    async def _forward(self, way: _Passage, near: socket.socket, far: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        forward = way.forward is (near is way.near)
        twin = way.twin if near is way.near else None
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(near, 65536):
                if self._record:
                    self.recorded += data
                if self._delay:
                    loop.call_later(self._delay, far.send, data)
                    continue
                start = way.carried[forward]
                way.carried[forward] += len(data)
                if way.dark:
                    continue
                cut = self._fault.at - start
                if self._fault.forward is forward and 0 <= cut < len(data) and self._strikes():
                    data = await self._strike(way, near, far, data, cut)
                    if way.closed:
                        return
                await loop.sock_sendall(far, data)
                if twin is not None:
                    with contextlib.suppress(OSError):
                        await loop.sock_sendall(twin, data)
        if not way.dark:
            await asyncio.sleep(self._delay)
            with contextlib.suppress(OSError):
                far.shutdown(socket.SHUT_WR)

    def _strikes(self) -> bool:
        if self.struck and not self._fault.every:
            return False
        self.struck_at = self.struck_at or time.monotonic()
        return True

    async def _strike(
        self, way: _Passage, near: socket.socket, far: socket.socket, data: bytes, cut: int
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
                way.dark = True
            elif kind is Kind.TRUNCATE:
                far.shutdown(socket.SHUT_WR)
                near.shutdown(socket.SHUT_RD)
            elif kind is Kind.KILL:
                way.dark = True
                for sock in (near, far):
                    # What close() of a dead process does: an end both ways at once.
                    sock.shutdown(socket.SHUT_RDWR)
            else:
                way.closed = True
                # A loop that still waits for a closed socket never wakes for the next one that
                # gets its number.
                for task in way.tasks:
                    if task is not asyncio.current_task():
                        task.cancel()
                await asyncio.sleep(0.001)
                self._reset(near, far)
            return b""
        return data

    def _reset(self, *socks: socket.socket) -> None:
        for sock in socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._open.discard(sock)
            sock.close()


class FaultProxy(Injection):
    """Listens on loopback and carries whoever connects to one target.

    Attributes:
        address: where it listens.
    """

    def __init__(
        self,
        target: tuple[str, int],
        fault: Fault,
        *,
        delay: float = 0.0,
        record: bool = False,
    ) -> None:
        super().__init__(fault, delay=delay, record=record)
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FaultProxy]:
        """Serves inside the context; everything is closed after."""
        self.start(self._serve())
        try:
            yield self
        finally:
            await self.close()
            self._listener.close()

    async def _serve(self) -> None:
        while True:
            near, _ = await asyncio.get_running_loop().sock_accept(self._listener)
            await self.carry(near, self._target)
