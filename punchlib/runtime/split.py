"""`split INPUT LINES OUT…`: LINES lines to each output in order; the last takes the rest."""

from __future__ import annotations

import sys

from punchlib.errors import UsageError
from punchlib.runtime.lines import LineReader
from punchlib.runtime.pipes import grow, open_input, require
from punchlib.runtime.r_split import Outputs
from punchlib.runtime.r_split_pieces import Piece
from punchlib.runtime.tool_edge import READER_GONE, run

_USAGE = "split INPUT LINES OUTPUT [OUTPUT…]"


def deal(reader: LineReader, lines: int, outputs: Outputs, count: int) -> int:
    """Gives `lines` lines to each output but the last, which takes the rest; the exit status."""
    for output in range(count):
        for data in reader.take(lines if output < count - 1 else None):
            outputs.put(Piece(output, 0, data, is_last=True))
        outputs.close(output)
    return READER_GONE if outputs.dropped else 0


def main() -> int:
    def body() -> int:
        if len(sys.argv) < 4:
            raise UsageError("too few arguments", next_step=_USAGE)
        source, lines, *paths = sys.argv[1:]
        if not lines.isdecimal():
            raise UsageError(f"LINES is {lines!r}, not a number", next_step=_USAGE)
        require(source)
        outputs = Outputs(paths, framed=False)
        fd = open_input(source)
        grow(fd, len(paths) + 1)
        return deal(LineReader(fd), int(lines), outputs, len(paths))

    return run("split", body)
