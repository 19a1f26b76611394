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
        self._loop = asyncio.get_running_loop()
        self._read = _Watch(fd, self._loop.add_reader, self._loop.remove_reader)
        self._write = _Watch(fd, self._loop.add_writer, self._loop.remove_writer)

    async def readable(self) -> None:
        """Returns when a read would not block (data, an end, an error), or at `interrupt()`."""
        await self._read.wait(self._loop.create_future())

    async def writable(self) -> None:
        """Returns when a write would not block: room, or an error."""
        await self._write.wait(self._loop.create_future())

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
        self, fd: int, add: Callable[..., object], remove: Callable[[int], object]
    ) -> None:
        self._fd = fd
        self._add = add
        self._remove = remove
        self._added = False
        self._waiter: asyncio.Future[None] | None = None

    async def wait(self, waiter: asyncio.Future[None]) -> None:
        self._waiter = waiter
        if not self._added:
            self._added = True
            self._add(self._fd, self._fire)
        try:
            await waiter
        finally:
            self._waiter = None

    def resolve(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def remove(self) -> None:
        if self._added:
            self._added = False
            self._remove(self._fd)

    def _fire(self) -> None:
        if self._waiter is None:
            self.remove()
        else:
            self.resolve()
