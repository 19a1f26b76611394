"""Fairness between the connections of one process."""

from __future__ import annotations

import asyncio

#: What one connection may move before all others have had their turn.
_BURST = 1 << 20
#: What moving a frame costs besides its bytes, as bytes.
_FRAME = 8192


class Turn:
    """A connection's turn on the loop: bounded work, then the others'.

    A pass through the loop costs as much as moving some ten kilobytes, so it is not made for every
    frame.
    """

    def __init__(self) -> None:
        self._used = 0

    async def took(self, size: int) -> None:
        """Accounts for a frame of `size` bytes; lets the others go when the turn is over."""
        self._used += size + _FRAME
        if self._used >= _BURST:
            self._used = 0
            await asyncio.sleep(0)
