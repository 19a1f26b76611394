"""r_split without looking at every byte: most of a block waits in a pipe of ours, unseen.

Where a block is cut is decided by its last newline, which nearly always stands in its last few
bytes. So these are read, and what comes before them only moves from pipe to pipe by splice. Where
they hold no newline (a very long line), the block is taken out of the pipe and searched as a whole.
"""

from __future__ import annotations

import fcntl
import os
import select
from collections.abc import Iterator

from punchlib.runtime.pipes import CHUNK, Mover, is_pipe, read_exactly
from punchlib.runtime.r_split_pieces import Piece

#: Bytes at the end of a block that are read.
TAIL = 8192
#: Room for pages that are only partly filled.
_SLACK = 32 * 1024


class HoldingPipe:
    """A pipe that only we use.

    Args:
        size: bytes that it must take; less is found out, and costs speed only.
    """

    def __init__(self, size: int) -> None:
        self._reader, self._writer = os.pipe()
        fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, size)
        self._mover = Mover(self._reader)
        self._held = 0

    def fill(self, source: int, size: int) -> int:
        """Moves up to `size` bytes in; fewer at the end of the input, or when it is full."""
        poll = select.poll()
        poll.register(source, select.POLLIN)
        held, ready = 0, False
        while held < size:
            try:
                flags = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
                moved = os.splice(source, self._writer, min(CHUNK, size - held), flags=flags)
            except BlockingIOError:
                if ready:  # there is input, so it is we who are full
                    break
                poll.poll()
                ready = True
                continue
            if not moved:
                break
            held += moved
            ready = False
        self._held += held
        return held

    def move(self, target: int, size: int) -> None:
        """Moves the first `size` bytes out."""
        while size:
            moved = self._mover.some(target, size)
            self._held -= moved
            size -= moved

    def take(self, size: int) -> bytes:
        """Reads the first `size` bytes."""
        self._held -= size
        return read_exactly(self._reader, size)

    def empty(self) -> None:
        """Throws away what is left."""
        self.take(self._held)

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


def holding_pipe(source: int, batch: int) -> HoldingPipe | None:
    """A pipe for blocks of this size, or None where it would not help or is not to be had."""
    if batch <= 2 * TAIL or not is_pipe(source):
        return None
    try:
        return HoldingPipe(batch + _SLACK)
    except OSError:
        return None  # over the user's limit (fs.pipe-max-size)


def held_rounds(
    source: int,
    hold: HoldingPipe,
    outputs: int,
    batch: int,
    block: int,
    carry: bytes,
    complete: bool,
    tail: int = TAIL,
) -> Iterator[Piece]:
    """Does what `r_split_pieces.rounds` does, by way of the pipe."""
    while True:
        held = hold.fill(source, batch - tail)
        seen = read_exactly(source, batch - held)
        ended = held + len(seen) < batch
        if ended and not (carry or held or seen):
            if not complete:  # the long line ended with the input, exactly at a block's end
                yield Piece(block % outputs, block, memoryview(b""), True)
            return
        block += complete
        if ended:
            yield Piece(block % outputs, block, memoryview(carry), True, held, seen)
            return
        cut = seen.rfind(b"\n") + 1
        if not cut:
            seen, held = hold.take(held) + seen, 0
            cut = seen.rfind(b"\n") + 1
        complete = bool(cut)
        yield Piece(block % outputs, block, memoryview(carry), complete, held, seen[: cut or None])
        carry = seen[cut:] if cut else b""
