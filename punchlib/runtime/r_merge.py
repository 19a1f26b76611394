"""`r_merge F… >F`: one logical block from each input in turn, headers removed.

Positional: the k-th block of the output comes from input k mod N. An input that has ended is
skipped from then on; the others' blocks keep coming.
"""

from __future__ import annotations

import sys

from punchlib.errors import StreamBroken, UsageError
from punchlib.runtime import blocks
from punchlib.runtime.pipes import Mover, grow, open_input, read_exactly, require
from punchlib.runtime.tool_edge import run


class Input:
    """One framed input of the merge."""

    def __init__(self, path: str, pipes: int) -> None:
        self._path = path
        self._fd = open_input(path)
        self._mover = Mover(self._fd)
        grow(self._fd, pipes)

    def block_to(self, target: int) -> bool:
        """Moves one logical block; returns False at the end of the input.

        Raises:
            StreamBroken: the input is cut, or is not framed.
        """
        begun = False
        while head := read_exactly(self._fd, blocks.HEADER_SIZE):
            if len(head) < blocks.HEADER_SIZE:
                raise self._cut(blocks.truncated(blocks.HEADER_SIZE - len(head)))
            header = blocks.decode(head)
            missing = self._mover.exactly(target, header.size)
            if missing:
                raise self._cut(blocks.truncated(missing, header))
            if header.is_last:
                return True
            begun = True
        if begun:
            raise self._cut(blocks.truncated(blocks.HEADER_SIZE))
        return False

    def _cut(self, error: StreamBroken) -> StreamBroken:
        error.message = f"{self._path}: {error.message}"
        return error


def merge(inputs: list[Input], target: int) -> None:
    """Merges until every input has ended."""
    while inputs:
        inputs = [source for source in inputs if source.block_to(target)]


def main() -> int:
    def body() -> int:
        paths = sys.argv[1:]
        if not paths:
            raise UsageError("no input given", next_step="r_merge FIFO [FIFO…] > OUTPUT")
        for path in paths:
            require(path)
        grow(1, len(paths) + 1)
        merge([Input(path, len(paths) + 1) for path in paths], 1)
        return 0

    return run("r_merge", body)
