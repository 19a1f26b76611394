"""What is known of a stream when it has ended."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass
class Stats:
    """How a stream went.

    Attributes:
        bytes: payload bytes sent, or delivered into the FIFO.
        first_byte_at: loop time of the first of them; None where there was none.
        ended_at: loop time of the end.
        stopped: the receiver's reader left before the end (`head`), which is no error.
        note: what people should know though it went well; may be empty.
    """

    bytes: int = 0
    first_byte_at: float | None = None
    ended_at: float = 0.0
    stopped: bool = False
    note: str = ""

    def count(self, size: int) -> None:
        """Takes note of `size` more bytes."""
        if self.first_byte_at is None:
            self.first_byte_at = asyncio.get_running_loop().time()
        self.bytes += size

    def end(self) -> Stats:
        """Takes note of the end."""
        self.ended_at = asyncio.get_running_loop().time()
        return self
