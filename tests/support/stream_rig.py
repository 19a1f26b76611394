"""Both ends of a stream in one process: sockets, terms, FIFOs, a feeder and a drain."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

import uvloop

from punchlib.config import Security
from punchlib.core.handshake import Identity, Terms
from punchlib.core.timing import TIMING, Timing
from punchlib.errors import Cause, PunchError
from punchlib.net.channel import SocketChannel
from punchlib.net.verifying import open_channel
from punchlib.pump.fifo import FifoReader, FifoWriter
from punchlib.pump.stream import Question, Stats, receive_stream, send_stream

#: Waiting times with one patience for silence of every kind, so that no test waits for minutes.
HASTY = dataclasses.replace(TIMING, handshake=10.0, ping=3.0, silence=10.0)
#: The kernel's own times are not scaled: it probes a shut window after 0.2, 0.4, 0.8 s…
KERNEL = 3.0
#: By what all waiting times of the stream are scaled in tests; more on a slow machine.
FACTOR = 0.08 * float(os.environ.get("PUNCH_TEST_TIME_FACTOR", "1"))
FAST = dataclasses.replace(HASTY.scaled(FACTOR), unanswered=KERNEL)
#: Within which every stream must have ended, however it was broken.
DEADLINE = 15 * FACTOR + 25

MIB = 1 << 20
#: Payloads at the edges of greetings, pipes and frames.
SIZES = (0, 1, 127, 128, 129, 65535, 65536, MIB - 1, MIB, MIB + 1, 5 * MIB + 3)

T = TypeVar("T")
Outcome = Stats | PunchError


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Runs a coroutine function on a fresh uvloop, bounded in time."""

    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await work()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(bounded())


@cache
def identity(number: int) -> Identity:
    """One of a few identities; making one takes milliseconds."""
    return Identity.generate()


def terms_pair(
    security: str = "authenticated", *, key: str = "k", job_key: bytes = b"job"
) -> tuple[Terms, Terms]:
    """What a sender and a receiver of one attempt agreed on."""
    sides = secrets.token_hex(8), secrets.token_hex(8)
    encrypted = security == "encrypted"

    def one(sending: bool) -> Terms:
        mine, theirs = (0, 1) if sending else (1, 0)
        return Terms(
            key=key,
            sending=sending,
            my_side=sides[mine],
            peer_side=sides[theirs],
            security=Security(security),
            job_key=job_key,
            my_identity=identity(mine) if encrypted else None,
            peer_cert=identity(theirs).cert_der if encrypted else b"",
        )

    return one(True), one(False)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection over loopback, non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there, _ = listener.accept()
    here.setblocking(False)
    there.setblocking(False)
    return here, there


async def channel_pair(security: str = "authenticated") -> tuple[SocketChannel, SocketChannel]:
    """Two verified ends: the sender's, the receiver's."""
    here, there = tcp_pair()
    sending, receiving = terms_pair(security)
    return await both(
        open_channel(here, sending, timing=FAST), open_channel(there, receiving, timing=FAST)
    )


class Listener:
    """The receiver's side of a port that anybody may connect to.

    Every connection gets a handshake, all at the same time; the first that verifies is nominated
    and the others are closed, as `punchlib.net.connector` does.

    Attributes:
        refused: how the other connections ended.
    """

    def __init__(self, terms: Terms, *, timing: Timing = FAST) -> None:
        self._terms = terms
        self._timing = timing
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()
        self.refused: list[BaseException] = []

    async def nominate(self) -> SocketChannel:
        """Waits for the first connection that verifies."""
        tasks: set[asyncio.Task[SocketChannel]] = set()
        loop = asyncio.get_running_loop()
        accepting = asyncio.ensure_future(loop.sock_accept(self._listener))
        try:
            while True:
                await asyncio.wait({accepting, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                if accepting.done():
                    sock, _ = accepting.result()
                    sock.setblocking(False)
                    tasks.add(
                        asyncio.create_task(open_channel(sock, self._terms, timing=self._timing))
                    )
                    accepting = asyncio.ensure_future(loop.sock_accept(self._listener))
                for ended in [task for task in tasks if task.done()]:
                    tasks.remove(ended)
                    if error := ended.exception():
                        self.refused.append(error)
                    else:
                        return ended.result()
        finally:
            for task in (accepting, *tasks):
                task.cancel()
            await asyncio.gather(accepting, *tasks, return_exceptions=True)
            self._listener.close()


async def dial(address: tuple[str, int], terms: Terms, *, timing: Timing = FAST) -> SocketChannel:
    """Connects and opens the sender's channel."""
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, address)
    return await open_channel(sock, terms, timing=timing)


async def both(first: Awaitable[T], second: Awaitable[T]) -> tuple[T, T]:
    """Both results."""
    a, b = await asyncio.gather(first, second)
    return a, b


async def outcome(work: Awaitable[Stats]) -> Outcome:
    """How a stream ended; anything but a typed error is a bug and is raised."""
    try:
        return await work
    except PunchError as error:
        return error


@contextlib.contextmanager
def background(
    work: Callable[[], None], release: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Runs blocking work in a thread; its exception is raised at the end.

    `release` is called until the thread has ended: it lets go who waits at a FIFO for nobody.
    """
    failures: list[BaseException] = []

    def target() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    yield
    deadline = time.monotonic() + 20
    while thread.is_alive() and time.monotonic() < deadline:
        release()
        thread.join(0.05)
    assert not thread.is_alive(), "a feeder or drain of the test is stuck"
    if failures:
        raise failures[0]


def payload(size: int, seed: int = 0) -> bytes:
    """`size` bytes; what repeats does so at an odd distance."""
    tile = random.Random(seed).randbytes(min(size, (1 << 20) + 7))
    return (tile * (size // max(1, len(tile)) + 1))[:size]


@dataclass
class Rig:
    """Two FIFOs with a feeder on the one and a drain on the other.

    Attributes:
        folder: where the FIFOs are made.
        data: what the feeder writes.
        got: what the drain has read.
        fed: how much the feeder could write before its reader left.
        drain_most: the drain leaves after so many bytes; None reads to the end.
    """

    folder: Path
    data: bytes
    drain_most: int | None = None
    got: bytearray = field(default_factory=bytearray)
    fed: int = 0

    def __post_init__(self) -> None:
        name = secrets.token_hex(4)
        self.source = str(self.folder / f"#in{name}")
        self.sink = str(self.folder / f"#out{name}")
        os.mkfifo(self.source)
        os.mkfifo(self.sink)

    def feed(self) -> None:
        """Writes all the data, like a stage that minds SIGPIPE."""
        fd = os.open(self.source, os.O_WRONLY)
        try:
            while self.fed < len(self.data):
                self.fed += os.write(fd, memoryview(self.data)[self.fed : self.fed + 65536])
        except BrokenPipeError:
            pass
        finally:
            os.close(fd)

    def drain(self) -> None:
        """Reads to the end, or `drain_most` bytes and leaves."""
        fd = os.open(self.sink, os.O_RDONLY)
        try:
            while self.drain_most is None or len(self.got) < self.drain_most:
                left = 65536 if self.drain_most is None else self.drain_most - len(self.got)
                if not (piece := os.read(fd, left)):
                    break
                self.got += piece
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def stages(self) -> Iterator[None]:
        """The stages before and after the stream run meanwhile."""
        with background(self.feed, self.release), background(self.drain, self.release):
            yield

    def release(self) -> None:
        """Lets a feeder or drain go that nobody ever met at its FIFO."""
        for path, flags in ((self.source, os.O_RDONLY), (self.sink, os.O_WRONLY)):
            with contextlib.suppress(OSError):
                os.close(os.open(path, flags | os.O_NONBLOCK))

    def reader(self) -> FifoReader:
        return FifoReader.open_path(self.source)

    def writer(self) -> FifoWriter:
        return FifoWriter.open_path(self.sink)


def saying(reason: str | None) -> Question:
    """Answers at once what went wrong upstream."""

    async def answer() -> Cause | None:
        return None if reason is None else Cause(reason)

    return answer


async def stream(
    rig: Rig,
    sender: SocketChannel,
    receiver: SocketChannel,
    upstream_failure: str | Question | None = None,
) -> tuple[Outcome, Outcome]:
    """Runs both ends to their outcomes, as `pashlib` does: a failed end closes its FIFO last."""
    ask = upstream_failure if callable(upstream_failure) else saying(upstream_failure)

    async def send() -> Stats:
        with contextlib.closing(rig.reader()) as fifo:
            return await send_stream(sender, fifo, upstream_failure=ask, timing=FAST)

    async def receive() -> Stats:
        with contextlib.closing(rig.writer()) as fifo:
            return await receive_stream(receiver, fifo, timing=FAST)

    async with asyncio.timeout(DEADLINE):
        return await both(outcome(send()), outcome(receive()))


def digest(data: bytes | bytearray) -> str:
    """What a test compares, so that a failure does not print a megabyte."""
    return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()[:16]}"


def assert_whole(rig: Rig, outcomes: tuple[Outcome, Outcome]) -> None:
    """Every byte arrived and both ends know; after the drain has ended."""
    for one in outcomes:
        assert isinstance(one, Stats), one
        assert one.bytes == len(rig.data)
        assert not one.stopped
    assert digest(rig.got) == digest(rig.data)


@contextlib.asynccontextmanager
async def no_tasks_left() -> AsyncIterator[None]:
    """Nothing that was started inside still runs at the end."""
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)
    left = asyncio.all_tasks() - before
    assert not left, left
