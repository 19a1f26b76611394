"""`sh-reduce KIND INPUT…`: joins what commands made of consecutive pieces of an input.

    cat         the inputs, one after the other. Unlike `cat` it opens all of them first: when its
                reader leaves early, no writer waits for ever for an input to be opened
    lines       the input; fails where it does not end with a newline: its last line goes on in the
                next piece
    some-lines  the same, and fails where there is none
    tac         the last input first
    sum         lines of numbers: each column is added (wc, grep -c)
    max         the same, and the largest of each column (wc -L)
    adjacent    outputs of `uniq -c` of consecutive pieces: where one ends with the line that the
                next begins with, their counts are added
    sorted      outputs of `sort | uniq -c`: merged by the bytes of the lines, equal ones added
    reversed    the same for `sort -r | uniq -c`

It writes what the command itself would: GNU's formats, `%7d` and a blank (coreutils, uniq.c, wc.c).
"""

from __future__ import annotations

import heapq
import sys
from operator import add

from punchlib.errors import StreamBroken, UsageError
from punchlib.runtime.pipes import open_input
from punchlib.runtime.tool_edge import run

_USAGE = "sh-reduce {cat|lines|some-lines|tac|sum|max|adjacent|sorted|reversed} INPUT…"
# As typing.TYPE_CHECKING, which takes 6 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

#: A line and how often it was found.
Counted = tuple[bytes, int]


def counted(lines: Iterable[bytes]) -> Iterator[Counted]:
    """Reads the output of `uniq -c`.

    Raises:
        StreamBroken: a line has another form.
    """
    for line in lines:
        count, blank, text = line.lstrip(b" ").partition(b" ")
        if not (blank and count.isdigit() and text.endswith(b"\n")):
            raise StreamBroken(f"{line[:80]!r} is no line of `uniq -c`")
        yield text[:-1], int(count)


def joined(pairs: Iterable[Counted]) -> Iterator[bytes]:
    """Adds the counts of equal neighbours, and writes as `uniq -c` does."""
    text, total = b"", 0
    for line, count in pairs:
        if line != text and total:
            yield b"%7d %s\n" % (total, text)
            total = 0
        text, total = line, total + count
    if total:
        yield b"%7d %s\n" % (total, text)


def adjacent(inputs: list[BinaryIO]) -> Iterator[bytes]:
    """Consecutive pieces, in order."""
    return joined(pair for file in inputs for pair in counted(file))


def merged(inputs: list[BinaryIO], *, reverse: bool = False) -> Iterator[bytes]:
    """Sorted pieces."""
    pairs = heapq.merge(*map(counted, inputs), key=lambda pair: pair[0], reverse=reverse)
    return joined(pairs)


def concatenated(inputs: list[BinaryIO]) -> Iterator[bytes]:
    """One after the other."""
    for file in inputs:
        while block := file.read(1 << 16):
            yield block


def of_lines(inputs: list[BinaryIO], *, some: bool = False) -> Iterator[bytes]:
    """The same, as far as it is whole lines, and `some` where that is wanted.

    Raises:
        UsageError: the last one is not, or there is none.
    """
    end = b"" if some else b"\n"
    for block in concatenated(inputs):
        yield block
        end = block[-1:]
    if not end:
        raise UsageError(
            "a file that another follows is empty, so what is squeezed there cannot be known",
            next_step="punch sh --width 1, or leave that file out",
        )
    if end != b"\n":
        raise UsageError(
            "a file that another follows does not end with a newline, so a line goes on in that",
            next_step="punch sh --width 1",
        )


def added(inputs: list[BinaryIO], fold: Callable[[int, int], int] = add) -> Iterator[bytes]:
    """Columns of numbers, each made one number by `fold`.

    Raises:
        StreamBroken: an input is not one line of numbers, or has more of them than another.
    """
    totals: list[int] = []
    for file in inputs:
        text = file.read(1 << 16)
        columns = text.split()
        if not columns or not all(c.isdigit() for c in columns) or text.count(b"\n") != 1:
            raise StreamBroken(f"{text[:80]!r} is no line of counts")
        totals = totals or [0] * len(columns)
        if len(columns) != len(totals):
            raise StreamBroken(f"{text[:80]!r} has not {len(totals)} counts")
        totals = [fold(total, int(c)) for total, c in zip(totals, columns, strict=True)]
    if len(totals) == 1:
        yield b"%d\n" % totals[0]
    else:
        yield b" ".join(b"%7d" % total for total in totals) + b"\n"


_KINDS: dict[str, Callable[[list[BinaryIO]], Iterator[bytes]]] = {
    "cat": concatenated,
    "lines": of_lines,
    "some-lines": lambda inputs: of_lines(inputs, some=True),
    "tac": lambda inputs: concatenated(inputs[::-1]),
    "sum": added,
    "max": lambda inputs: added(inputs, max),
    "adjacent": adjacent,
    "sorted": merged,
    "reversed": lambda inputs: merged(inputs, reverse=True),
}


def main() -> int:
    def body() -> int:
        kind, *paths = sys.argv[1:] or [""]
        if kind not in _KINDS or not paths:
            raise UsageError("a kind and inputs are needed", next_step=_USAGE)
        # Closed with this process, as its output is.
        inputs = [open(open_input(path), "rb", 1 << 16) for path in paths]  # noqa: SIM115
        # Not sys.stdout: what is left in its buffer when a reader has gone fails again at exit.
        with open(1, "wb", 1 << 16, closefd=False) as out:
            for line in _KINDS[kind](inputs):
                out.write(line)
        return 0

    return run("sh-reduce", body)
