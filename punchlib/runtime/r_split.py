"""`r_split [-r] INPUT BATCH OUTPUT…`: deals blocks of whole lines to the outputs in turn.

BATCH is in bytes. The first round reads N·BATCH bytes and cuts them into N blocks; an input that
is shorter is cut into N even ones. From then on one block of BATCH bytes at a time goes out. A
block ends after its last newline; what follows it begins the next block. Without -r each piece of
a block has a frame header (see blocks.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

from punchlib.errors import UsageError
from punchlib.runtime.blocks import Header
from punchlib.runtime.pipes import CHUNK, grow, open_input, open_output, require, write_all
from punchlib.runtime.tool import READER_GONE, run

_USAGE = "r_split [-r] INPUT BATCH_BYTES OUTPUT [OUTPUT…]"


class Piece:
    """What goes to one output at once.

    Attributes:
        output: number of the output, from 0.
        block_id: number of the logical block, from 0.
        data: the bytes; valid until the next piece is asked for.
        is_last: this piece ends its logical block.
    """

    __slots__ = ("block_id", "data", "is_last", "output")

    def __init__(self, output: int, block_id: int, data: memoryview, is_last: bool) -> None:
        self.output = output
        self.block_id = block_id
        self.data = data
        self.is_last = is_last


def split(fill: Callable[[memoryview], int], outputs: int, batch: int) -> Iterator[Piece]:
    """Cuts the input into pieces.

    Args:
        fill: reads into the buffer until it is full; returns the number of bytes, less than the
            buffer's length only at the end of the input.
        outputs: how many outputs there are, N.
        batch: block size in bytes.
    """
    first = _Growing(fill, outputs * batch)
    size, ended = first.size, first.size < outputs * batch
    if not size:
        return
    data = first.data
    view = memoryview(data)
    even = size // outputs if ended else batch
    start = 0
    for block in range(outputs - 1):
        # At or before: a piece without a newline stays empty, the next one gets its bytes.
        cut = data.rfind(b"\n", start, (block + 1) * even) + 1 or start
        yield Piece(block, block, view[start:cut], True)
        start = cut
    block = outputs - 1
    cut = size if ended else data.rfind(b"\n", start, size) + 1
    # Without a newline this is the beginning of a long line: all of it, and more to come.
    yield Piece(block, block, view[start : cut or size], bool(cut))
    if ended:
        return
    carry = bytes(view[cut:size]) if cut else b""
    view.release()
    del data, first
    yield from _rounds(fill, outputs, batch, block, carry, bool(cut))


def _rounds(
    fill: Callable[[memoryview], int],
    outputs: int,
    batch: int,
    block: int,
    carry: bytes,
    complete: bool,
) -> Iterator[Piece]:
    """Everything after the first round.

    Args:
        block: the block that came last.
        carry: the beginning of a line that belongs to the next block.
        complete: that block has ended; otherwise its long line goes on.
    """
    # The carry stands in front of what is read: a block leaves as one piece, nothing is joined.
    room = batch
    data = bytearray(room + batch)
    while True:
        kept = len(carry)
        if kept > room:
            room = kept
            data = bytearray(room + batch)
        data[room - kept : room] = carry
        view = memoryview(data)
        size = fill(view[room:])
        start, end = room - kept, room + size
        if start == end:
            if not complete:  # the long line ended with the input, exactly at a block's end
                yield Piece(block % outputs, block, view[:0], True)
            return
        block += complete
        ended = size < batch
        cut = end if ended else data.rfind(b"\n", room, end) + 1
        complete = bool(cut)
        yield Piece(block % outputs, block, view[start : cut or end], complete)
        if ended:
            return
        carry = bytes(view[cut:end]) if cut else b""


class _Growing:
    """Reads up to `limit` bytes into a buffer that grows with what comes."""

    def __init__(self, fill: Callable[[memoryview], int], limit: int) -> None:
        self.data = bytearray()
        self.size = 0
        while self.size < limit:
            step = min(max(CHUNK, self.size), limit - self.size)
            self.data.extend(bytes(step))
            with memoryview(self.data) as view:
                got = fill(view[self.size :])
            self.size += got
            if got < step:
                break


def _filler(fd: int) -> Callable[[memoryview], int]:
    def fill(view: memoryview) -> int:
        done, size = 0, len(view)
        while done < size and (got := os.readv(fd, [view[done:]])):
            done += got
        return done

    return fill


class Outputs:
    """The outputs; one whose reader has gone is dropped, and the others go on."""

    def __init__(self, paths: list[str], *, framed: bool) -> None:
        for path in paths:
            require(path)
        self._framed = framed
        self._fds: list[int | None] = [open_output(path) for path in paths]
        self.dropped = 0
        for fd in self._fds:
            if fd is not None:
                grow(fd, len(paths) + 1)

    @property
    def gone(self) -> bool:
        """No reader is left."""
        return self.dropped == len(self._fds)

    def close(self, output: int) -> None:
        """Ends one output: its reader sees the end."""
        fd = self._fds[output]
        if fd is not None:
            os.close(fd)
            self._fds[output] = None

    def put(self, piece: Piece) -> None:
        fd = self._fds[piece.output]
        if fd is None:
            return
        try:
            if self._framed:
                header = Header(piece.block_id, len(piece.data), piece.is_last)
                write_all(fd, header.encode(), piece.data)
            elif piece.data:
                write_all(fd, piece.data)
        except BrokenPipeError:
            self.close(piece.output)
            self.dropped += 1


def main() -> int:
    def body() -> int:
        args = sys.argv[1:]
        framed = "-r" not in args[:1]
        if not framed:
            args = args[1:]
        if len(args) < 3:
            raise UsageError("too few arguments", next_step=_USAGE)
        source, batch, *paths = args
        if not batch.isdecimal() or not int(batch):
            raise UsageError(f"BATCH is {batch!r}, not a number of bytes", next_step=_USAGE)
        require(source)
        outputs = Outputs(paths, framed=framed)
        fd = open_input(source)
        grow(fd, len(paths) + 1)
        for piece in split(_filler(fd), len(paths), int(batch)):
            outputs.put(piece)
            if outputs.gone:
                break
        return READER_GONE if outputs.dropped else 0

    return run("r_split", body)
