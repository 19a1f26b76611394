"""A FIFO's reader is waited for by the kernel: no looks, and nothing left behind, ever."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchlib.pump.fifo import FifoWriter
from punchlib.pump.fifo_open import Opening
from tests.support.stream_rig import background, run


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    path = str(tmp_path / "#fifo")
    os.mkfifo(path)
    return path


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    run(_nothing)  # libuv keeps a pipe from its first loop on
    gc.collect()  # what other tests have left may go meanwhile: there may be less, never more
    before = threads(), descriptors()
    yield
    deadline = time.monotonic() + 10
    while more_than(before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not more_than(before), (threads(), descriptors(), before)


def more_than(before: tuple[int, int]) -> bool:
    return threads() > before[0] or descriptors() > before[1]


async def _nothing() -> None:
    pass


def threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def reading(path: str) -> threading.Thread:
    """A stage that reads the FIFO to its end."""

    def read() -> None:
        with open(path, "rb") as stage:
            stage.read()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("reader_first", [True, False])
def test_it_is_open_as_soon_as_there_is_a_reader(fifo: str, reader_first: bool) -> None:
    async def work() -> None:
        with contextlib.closing(FifoWriter.open_path(fifo)) as sink:
            stage = reading(fifo) if reader_first else None
            if reader_first:
                await asyncio.sleep(0.05)
            waiters = [asyncio.create_task(sink.opened()) for _ in range(3)]
            await asyncio.sleep(0.05)
            stage = stage or reading(fifo)
            await asyncio.gather(*waiters)
            assert sink.is_open
            await sink.write(memoryview(b"x" * 300_000), lambda _: None)
        await asyncio.to_thread(stage.join)

    run(work)


def test_a_fifo_that_is_removed_meanwhile(fifo: str) -> None:
    """Also through /proc/self/fd, as the engine hands paths over."""

    async def work() -> None:
        held = os.open(fifo, os.O_PATH)
        with contextlib.closing(FifoWriter.open_path(f"/proc/self/fd/{held}")) as sink:
            waiter = asyncio.create_task(sink.opened())
            await asyncio.sleep(0.05)
            Path(fifo).unlink()
            stage = reading(f"/proc/self/fd/{held}")
            await waiter
        await asyncio.to_thread(stage.join)
        os.close(held)

    run(work)


def test_one_who_stops_waiting_does_not_end_the_others_wait(fifo: str) -> None:
    async def work() -> None:
        with contextlib.closing(FifoWriter.open_path(fifo)) as sink:
            first, second = (asyncio.create_task(sink.opened()) for _ in range(2))
            await asyncio.sleep(0.02)
            first.cancel()
            await asyncio.sleep(0.02)
            assert not second.done()
            stage = reading(fifo)
            await second
        await asyncio.to_thread(stage.join)

    run(work)


@pytest.mark.parametrize("delay", [None, 0.0, 0.0001, 0.001, 0.05])
def test_a_wait_is_given_up_at_any_time(fifo: str, delay: float | None) -> None:
    async def work() -> None:
        for _ in range(40):
            sink = FifoWriter.open_path(fifo)
            waiter = asyncio.create_task(sink.opened())
            if delay is not None:
                await asyncio.sleep(random.uniform(0, delay))
            waiter.cancel()
            await asyncio.wait([waiter])
            sink.close()

    run(work)


def test_a_reader_that_comes_while_the_wait_is_given_up(fifo: str) -> None:
    """Whoever wins, the reader is let go and nothing is left."""

    async def work() -> None:
        for n in range(100):
            sink = FifoWriter.open_path(fifo)
            waiter = asyncio.create_task(sink.opened())
            await asyncio.sleep(0)
            stage = reading(fifo)
            await asyncio.sleep(n * 5e-6)
            sink.close()
            await asyncio.wait([waiter])
            while stage.is_alive():
                with contextlib.suppress(OSError):
                    os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
                await asyncio.sleep(0.001)

    run(work)


def test_many_waits_sleep(tmp_path: Path) -> None:
    """256 FIFOs that nobody reads cost no processor time, and little memory."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    def memory() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    async def work() -> None:
        for n in range(256):
            os.mkfifo(tmp_path / str(n))
        sinks = [FifoWriter.open_path(str(tmp_path / str(n))) for n in range(256)]
        before = memory()
        waiters = [asyncio.create_task(sink.opened()) for sink in sinks]
        await asyncio.sleep(0.5)
        assert memory() - before < 256 * 64 << 10
        woken, started = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw, spent()
        await asyncio.sleep(1.0)
        assert spent() - started < 0.1
        assert resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - woken < 20
        for waiter in waiters:
            waiter.cancel()
        for sink in sinks:
            sink.close()
        await asyncio.wait(waiters)

    run(work)


def test_without_a_loop(fifo: str) -> None:
    """As `dgsh-tee` waits: it is woken by whatever it polls."""
    woken = threading.Event()
    opening = Opening(fifo, woken.set)
    assert not opening.done
    got: list[bytes] = []

    def read() -> None:
        with open(fifo, "rb") as stage:
            got.append(stage.read())

    with background(read):
        assert woken.wait(10)
        assert opening.done
        fd = opening.result()
        assert not os.get_blocking(fd)
        os.write(fd, b"all")
        os.close(fd)
    assert got == [b"all"]
    opening.abandon()
    abandoned = Opening(fifo, woken.set)
    abandoned.abandon()
    assert abandoned.done


def test_a_fifo_that_vanishes_is_an_error(tmp_path: Path) -> None:
    woken = threading.Event()
    opening = Opening(str(tmp_path / "nowhere"), woken.set)
    assert woken.wait(10)
    with pytest.raises(FileNotFoundError):
        opening.result()
