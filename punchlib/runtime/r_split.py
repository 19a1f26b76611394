"""`r_split [-r] INPUT BATCH OUTPUT…`: deals blocks of whole lines to the outputs in turn.

BATCH is in bytes. The first round reads N·BATCH bytes and cuts them into N blocks; an input that
is shorter is cut into N even ones. From then on one block of BATCH bytes at a time goes out. A
block ends after its last newline; what follows it begins the next block. Without -r each piece of
a block has a frame header (see blocks.py).
"""

from __future__ import annotations

import os
import sys
from functools import partial

from punchlib.errors import UsageError
from punchlib.runtime.blocks import BlockHeader
from punchlib.runtime.holding import HoldingPipe, held_rounds, holding_pipe
from punchlib.runtime.pipes import CHUNK, grow, open_input, open_output, require, write_all
from punchlib.runtime.r_split_pieces import Piece, split
from punchlib.runtime.tool_edge import READER_GONE, run

# As typing.TYPE_CHECKING, which takes 6 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_USAGE = "r_split [-r] INPUT BATCH_BYTES OUTPUT [OUTPUT…]"


def _filler(fd: int) -> Callable[[memoryview], int]:
    def fill(view: memoryview) -> int:
        done, size = 0, len(view)
        while done < size and (got := os.readv(fd, [view[done:]])):
            done += got
        return done

    return fill


class Outputs:
    """The outputs; one whose reader has gone is dropped, and the others go on.

    Attributes:
        hold: where the held bytes of the pieces wait.
        dropped: how many have been dropped.
    """

    def __init__(self, paths: list[str], *, framed: bool) -> None:
        self.hold: HoldingPipe | None = None
        for path in paths:
            require(path)
        self._framed = framed
        self._fds: list[int | None] = [open_output(path) for path in paths]
        self.dropped = 0
        for fd in self._fds:
            if fd is not None:
                grow(fd, len(paths) + 2, CHUNK)

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
        """Writes one piece, and with frames its header."""
        fd = self._fds[piece.output]
        try:
            if fd is not None:
                self._write(fd, piece)
        except BrokenPipeError:
            self.close(piece.output)
            self.dropped += 1
        if self.hold and piece.held and self._fds[piece.output] is None:
            self.hold.empty()

    def _write(self, fd: int, piece: Piece) -> None:
        buffers = [piece.data] if piece.data else []
        if self._framed:
            header = BlockHeader(piece.block_id, piece.size, piece.is_last)
            buffers.insert(0, memoryview(header.encode()))
        if buffers:
            write_all(fd, *buffers)
        if self.hold and piece.held:
            self.hold.move(fd, piece.held)
        if piece.after:
            write_all(fd, piece.after)


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
        # A block at a time passes: while one leaves, the writer can already fill the next.
        grow(fd, len(paths) + 2, CHUNK)
        hold = outputs.hold = holding_pipe(fd, int(batch))
        later = partial(held_rounds, fd, hold, len(paths), int(batch)) if hold else None
        for piece in split(_filler(fd), len(paths), int(batch), later):
            outputs.put(piece)
            if outputs.gone:
                break
        return READER_GONE if outputs.dropped else 0

    return run("r_split", body)
