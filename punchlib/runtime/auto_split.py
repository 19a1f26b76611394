"""`auto-split.sh INPUT OUT…`: contiguous parts of total // N lines; the last takes the rest.

The total must be known before the first line leaves, so an input that cannot be read twice is
first spooled to a file without a name in TMPDIR.
"""

from __future__ import annotations

import os
import stat
import sys

from punchlib.errors import PunchError, UsageError
from punchlib.runtime.lines import LineReader
from punchlib.runtime.pipes import PIPE_SIZE, grow, open_input, require, write_all
from punchlib.runtime.r_split import Outputs
from punchlib.runtime.split import deal
from punchlib.runtime.tool_edge import run

_USAGE = "auto-split.sh INPUT OUTPUT [OUTPUT…]"


def count_lines(fd: int, copy: int | None) -> int:
    """Counts the newlines, and copies what it reads."""
    lines = 0
    while data := os.read(fd, PIPE_SIZE):
        lines += data.count(b"\n")
        if copy is not None:
            write_all(copy, data)
    return lines


def spool(fd: int) -> tuple[int, int]:
    """Counts the lines of the input; returns them and a descriptor to read it (again) from.

    Raises:
        PunchError: the disk is full.
    """
    from tempfile import TemporaryFile

    start = 0
    if stat.S_ISREG(os.fstat(fd).st_mode):
        start = os.lseek(fd, 0, os.SEEK_CUR)  # of stdin others may have read some
        lines, again = count_lines(fd, None), fd
    else:
        with TemporaryFile(prefix="auto-split-") as file:
            again = os.dup(file.fileno())
        try:
            lines = count_lines(fd, again)
        except OSError as error:
            raise PunchError(
                f"cannot spool the input: {error.strerror}",
                next_step="make room, or set TMPDIR to a folder that has it",
            ) from error
    os.lseek(again, start, os.SEEK_SET)
    return lines, again


def main() -> int:
    def body() -> int:
        if len(sys.argv) < 3:
            raise UsageError("too few arguments", next_step=_USAGE)
        source, *paths = sys.argv[1:]
        require(source)
        outputs = Outputs(paths, framed=False)
        fd = open_input(source)
        grow(fd)
        lines, fd = spool(fd)
        return deal(LineReader(fd), lines // len(paths), outputs, len(paths))

    return run("auto-split", body)
