"""Fairness between the connections of one process."""

from __future__ import annotations

from punchlib.pump.fifo import PIPE_SIZE

#: What one connection may move before all others have had their turn: what its FIFO holds. With
#: more, who happens to be fed in time goes on and on.
_BURST = PIPE_SIZE
#: What moving a frame costs besides its bytes, as bytes.
_FRAME = 8192


class Turn:
    """A connection's turn on the loop: bounded work, then the others'.

    A pass through the loop costs as much as moving some ten kilobytes, so it is not made for every
    frame.
    """

    def __init__(self) -> None:
        self._used = 0

    def over(self, size: int) -> bool:
        """Accounts for a frame of `size` bytes; whether the others are to go now."""
        self._used += size + _FRAME
        if self._used < _BURST:
            return False
        self._used = 0
        return True
