"""Reads a given number of lines at a time, for `split` and `auto-split.sh`."""

from __future__ import annotations

import os

from punchlib.runtime.pipes import PIPE_SIZE

# As typing.TYPE_CHECKING, which takes 6 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class LineReader:
    """The lines of an input, in pieces of any size."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._left = b""

    def take(self, lines: int | None) -> Iterator[memoryview]:
        """Yields the next `lines` lines, or everything that is left for None."""
        while lines is None or lines > 0:
            data = self._left or os.read(self._fd, PIPE_SIZE)
            self._left = b""
            if not data:
                return
            if lines is not None:
                here = data.count(b"\n")
                if here >= lines:
                    cut = after_newline(data, lines)
                    data, self._left = data[:cut], data[cut:]
                lines -= min(here, lines)
            yield memoryview(data)


def after_newline(data: bytes, number: int) -> int:
    """The offset after newline `number` (from 1), which must be there."""
    low, high = 0, len(data)
    # Halving: counting is far quicker than looking for one newline after the other.
    while high - low > 1024:
        middle = (low + high) // 2
        here = data.count(b"\n", low, middle)
        if here >= number:
            high = middle
        else:
            low, number = middle, number - here
    for _ in range(number):
        low = data.index(b"\n", low) + 1
    return low
