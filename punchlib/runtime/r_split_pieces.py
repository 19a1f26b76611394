"""Where `r_split` cuts: the logic alone. Input comes from a function, pieces are yielded."""

from __future__ import annotations

from punchlib.runtime.pipes import CHUNK

# As typing.TYPE_CHECKING, which takes 6 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Piece:
    """What goes to one output at once.

    Attributes:
        output: number of the output, from 0.
        block_id: number of the logical block, from 0.
        data: the bytes; valid until the next piece is asked for.
        is_last: this piece ends its logical block.
        held: that many bytes follow `data`, and wait in the holding pipe.
        after: bytes that follow those.
    """

    __slots__ = ("after", "block_id", "data", "held", "is_last", "output")

    def __init__(
        self,
        output: int,
        block_id: int,
        data: memoryview,
        is_last: bool,
        held: int = 0,
        after: bytes = b"",
    ) -> None:
        self.output = output
        self.block_id = block_id
        self.data = data
        self.is_last = is_last
        self.held = held
        self.after = after

    @property
    def size(self) -> int:
        """Bytes of this piece."""
        return len(self.data) + self.held + len(self.after)


def split(
    fill: Callable[[memoryview], int],
    outputs: int,
    batch: int,
    later: Callable[[int, bytes, bool], Iterator[Piece]] | None = None,
) -> Iterator[Piece]:
    """Cuts the input into pieces.

    Args:
        fill: reads into the buffer until it is full; returns the number of bytes, less than the
            buffer's length only at the end of the input.
        outputs: how many outputs there are, N.
        batch: block size in bytes.
        later: what cuts everything after the first round, in place of `rounds`; it gets the
            last three arguments of that.
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
    if later:
        yield from later(block, carry, bool(cut))
    else:
        yield from rounds(fill, outputs, batch, block, carry, bool(cut))


def rounds(
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
