"""Waiting until a descriptor is ready, on the running loop."""

from __future__ import annotations

import asyncio


class Readiness:
    """Waits for one descriptor: one task for reading and one for writing, at most.

    Nothing stays registered between two waits, so a level-triggered loop is never woken for what
    nobody waits for.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._reading: asyncio.Future[None] | None = None

    async def readable(self) -> None:
        """Returns when a read would not block (data, an end, an error), or at `interrupt()`."""
        self._reading = ready = self._loop.create_future()
        self._loop.add_reader(self._fd, _resolve, ready)
        try:
            await ready
        finally:
            self._reading = None
            self._loop.remove_reader(self._fd)

    async def writable(self) -> None:
        """Returns when a write would not block: room, or an error."""
        ready = self._loop.create_future()
        self._loop.add_writer(self._fd, _resolve, ready)
        try:
            await ready
        finally:
            self._loop.remove_writer(self._fd)

    def interrupt(self) -> None:
        """Ends a wait in `readable()`."""
        if self._reading is not None:
            _resolve(self._reading)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
