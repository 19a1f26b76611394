"""Waiting until a descriptor is ready, on the running loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Readiness:
    """Waits for one descriptor: one task for reading and one for writing, at most.

    The loop goes on watching after a wait, because the next one is likely to come at once and
    because adding and removing a watch costs more than a small frame. When the descriptor turns
    out to be ready and nobody waits, the watch is removed.
    """

    def __init__(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        self._read = _Watch(fd, loop, loop.add_reader, loop.remove_reader)
        self._write = _Watch(fd, loop, loop.add_writer, loop.remove_writer)

    @property
    def reading_since(self) -> float | None:
        """Loop time since when somebody has been waiting in `readable()`; else None."""
        return self._read.since if self._read.pending() else None

    def readable(self) -> asyncio.Future[None]:
        """Is done when a read would not block (data, an end, an error), or at `interrupt()`."""
        return self._read.wait()

    def writable(self) -> asyncio.Future[None]:
        """Is done when a write would not block: room, or an error."""
        return self._write.wait()

    def interrupt(self) -> None:
        """Ends a wait in `readable()`."""
        self._read.resolve()

    def close(self) -> None:
        """Stops watching; must be called before the descriptor is closed."""
        self._read.remove()
        self._write.remove()


class _Watch:
    """The loop's watch on one direction of a descriptor."""

    def __init__(
        self,
        fd: int,
        loop: asyncio.AbstractEventLoop,
        add: Callable[..., object],
        remove: Callable[[int], object],
    ) -> None:
        self.since = 0.0
        self._fd = fd
        self._loop = loop
        self._add = add
        self._remove = remove
        self._added = False
        self._waiter: asyncio.Future[None] | None = None

    def pending(self) -> asyncio.Future[None] | None:
        """What somebody waits for."""
        return self._waiter if self._waiter is not None and not self._waiter.done() else None

    def wait(self) -> asyncio.Future[None]:
        self.since = self._loop.time()
        self._waiter = waiter = self._loop.create_future()
        # Also when it was added before: uvloop ends its watch on a descriptor in error (POLLERR),
        # both directions at once, and keeps what is left of it until it is removed.
        self._added = True
        try:
            self._add(self._fd, self._fire)
        except RuntimeError:
            self._remove(self._fd)
            self._add(self._fd, self._fire)
        return waiter

    def resolve(self) -> None:
        if waiter := self.pending():
            waiter.set_result(None)

    def remove(self) -> None:
        if self._added:
            self._added = False
            self._remove(self._fd)

    def _fire(self) -> None:
        if waiter := self.pending():
            waiter.set_result(None)
        else:
            self.remove()
