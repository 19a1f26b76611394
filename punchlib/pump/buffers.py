"""Buffers for payload that has to pass through user space."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from punchlib.pump.fifo import PIPE_SIZE

_free: list[memoryview] = []


@contextlib.contextmanager
def borrowed() -> Iterator[memoryview]:
    """Lends a buffer of `PIPE_SIZE` bytes.

    The one that came back last is lent first: it is still in the CPU's cache, so that many streams
    that are never held up go through one hot buffer.
    """
    buffer = _free.pop() if _free else memoryview(bytearray(PIPE_SIZE))
    try:
        yield buffer
    finally:
        _free.append(buffer)
