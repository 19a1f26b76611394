"""What is known of a stream: on its way, and when it has ended."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

#: Seconds between two words on how far a stream is.
EVERY = 1.0


class Step(enum.StrEnum):
    """Where a stream is on its way."""

    FIRST_BYTE = "first_byte"
    PROGRESS = "progress"
    #: All was sent, or is in the FIFO.
    LAST_BYTE = "last_byte"
    #: The receiver has everything, and the sender knows it.
    ACKNOWLEDGED = "acknowledged"


#: Is told of each step, and how many payload bytes have moved by then.
Tell: TypeAlias = Callable[[Step, int], None]


def nobody(step: Step, total: int) -> None:
    """Nobody wants to know."""


class Progress:
    """Says how far a stream is: at its first byte, and once a second while bytes move.

    Attributes:
        first_byte_at: loop time of the first payload byte; None where there was none.
    """

    def __init__(self, tell: Tell = nobody) -> None:
        self.tell = tell
        self.first_byte_at: float | None = None
        self._next = 0.0

    def moved(self, total: int) -> None:
        """Takes note that so many payload bytes have moved."""
        now = asyncio.get_running_loop().time()
        if self.first_byte_at is None:
            self.first_byte_at = now
            self.tell(Step.FIRST_BYTE, total)
        elif now < self._next:
            return
        else:
            self.tell(Step.PROGRESS, total)
        self._next = now + EVERY


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

    def end(self) -> Stats:
        """Takes note of the end."""
        self.ended_at = asyncio.get_running_loop().time()
        return self
