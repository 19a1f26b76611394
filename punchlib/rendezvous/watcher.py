"""One reader of the store for all connections of a process.

Waiting for a peer takes from milliseconds to the minutes of a cold start. Each waiting connection
becomes due again after a pause that grows with its age, from 20 ms at first to seconds after
minutes; whoever is due, or nearly so, is read in one batched call. Where a read takes long, be it
the store's fault or that this machine is busy, the pauses grow with it: under load less is read.

Over time no more than `RATE` reads a second are made, whoever waits for whatever.

The interface is `changed(slot, seen, fastest=…)`: what one caller waits for, and the shortest pause
that it has use for. Everything else is the watcher's own affair.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Protocol

from punchlib.errors import RendezvousError
from punchlib.rendezvous.store import RendezvousStore, Slot

#: Seconds. A poll costs a read; a late poll costs time to the first byte.
FASTEST = 0.020
#: The pause as a share of the time already waited, and the longest.
PATIENCE_SHARE = 0.01
SLOWEST = 3.0
#: The pause is at least so many times the time that the last read took.
READ_SHARE = 2.0

#: Reads a second in the long run, and how many may come at once before that.
RATE, BURST = 4.0, 100.0
#: Records that one read brings (DynamoDB's own limit).
READ_SIZE = 100


def pause_after(waited: float) -> float:
    """Seconds until the next look, for who has waited so long."""
    return min(waited * PATIENCE_SHARE, SLOWEST)


@dataclass(eq=False)
class _Waiter:
    slot: Slot
    seen: str | None
    fastest: float
    started: float
    due: float
    result: asyncio.Future[str] = field(repr=False)

    def pause(self, now: float, read_took: float) -> float:
        loaded = min(READ_SHARE * read_took, SLOWEST)
        return max(self.fastest, pause_after(now - self.started), loaded)


class Pace:
    """How many reads may be made (a token bucket)."""

    def __init__(self, rate: float = RATE, burst: float = BURST) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next read may be made."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        missing = 1.0 - self._left
        # Less than a microsecond is a rounding error, and no clock may ever show it as past.
        return missing / self._rate if missing > 1e-6 else 0.0

    def take(self, reads: int) -> None:
        """Notes that so many are being made."""
        self._left -= reads


class Watching(Protocol):
    """What waits for records: `Watcher`, or `MachineStore` where there is an engine."""

    @property
    def last_error(self) -> RendezvousError | None: ...

    async def changed(self, slot: Slot, seen: str | None, *, fastest: float = FASTEST) -> str: ...

    async def close(self) -> None: ...


class Watcher:
    """Waits for records to appear or to change.

    Args:
        store: where they are.

    Attributes:
        last_error: the store's latest failure while somebody waited; None after a good read.
    """

    def __init__(self, store: RendezvousStore) -> None:
        self.last_error: RendezvousError | None = None
        self._store = store
        self._pace = Pace()
        self._waiters: set[_Waiter] = set()
        self._wake = asyncio.Event()
        self._read_took = 0.0
        self._task: asyncio.Task[None] | None = None

    async def changed(self, slot: Slot, seen: str | None, *, fastest: float = FASTEST) -> str:
        """The record at `slot` as soon as there is one that differs from `seen`.

        Waits for ever: the caller has the deadline.

        Raises:
            RendezvousError: the store refuses for good.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        waiter = _Waiter(slot, seen, fastest, now, now + fastest, loop.create_future())
        self._waiters.add(waiter)
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        try:
            return await waiter.result
        finally:
            self._waiters.discard(waiter)

    def tell(self, slot: Slot, text: str) -> None:
        """What stands at `slot` now, from who has just put it there: saves a read and its pause."""
        for waiter in [w for w in self._waiters if w.slot == slot and w.seen != text]:
            if not waiter.result.done():
                waiter.result.set_result(text)
            self._waiters.discard(waiter)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._waiters:  # who woke us may have been told its record meanwhile
                self._wake.clear()
                await self._wake.wait()
            now = loop.time()
            pause = max(min(w.due for w in self._waiters) - now, self._pace.wait(now))
            if pause > 0:
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                continue
            await self._poll(loop)

    async def _poll(self, loop: asyncio.AbstractEventLoop) -> None:
        # Those who are due within half of their pause come along: one call instead of many.
        now = loop.time()
        batch = [w for w in self._waiters if w.due - now <= w.pause(now, self._read_took) / 2]
        found: dict[Slot, str] = {}
        slots = {w.slot for w in batch}
        self._pace.take(-(-len(slots) // READ_SIZE))
        try:
            found = await self._store.read(slots)
            self.last_error = None
        except RendezvousError as exc:
            self.last_error = exc
        except Exception as exc:
            # Whoever waits must hear of it: without this task nobody would ever be woken.
            self.last_error = RendezvousError(f"rendezvous: {type(exc).__name__}: {exc}")
        started, now = now, loop.time()
        self._read_took = now - started
        for waiter in batch:
            text = found.get(waiter.slot)
            if waiter.result.done():
                pass  # cancelled meanwhile
            elif self.last_error is not None:
                waiter.result.set_exception(self.last_error)
            elif text is not None and text != waiter.seen:
                waiter.result.set_result(text)
            else:
                waiter.due = now + waiter.pause(now, self._read_took)
                continue
            # Out at once: one that is overdue for ever would keep this task from ever waiting.
            self._waiters.discard(waiter)
