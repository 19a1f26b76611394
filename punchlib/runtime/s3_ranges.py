"""Readers of line-aligned ranges: `s3-shard-reader.py` and `s3-chunk-reader-*.py`.

A line belongs to the range that holds its first byte. So a range skips the line that is under way
when it begins (known from the byte before it) and reads on past its end to finish its last line;
neighbours need no agreement, and a line of any length is right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from punchlib.config import Config
from punchlib.errors import UsageError
from punchlib.runtime import storage
from punchlib.runtime.blocks import BlockHeader
from punchlib.runtime.pipes import grow, write_all
from punchlib.runtime.s3_get import open_destination

_SHARD_USAGE = "python3.9 aws/s3-shard-reader.py KEY DEST bytes=A-B [shard=I num_shards=N …]"
_CHUNK_USAGE = "python3.9 aws/s3-chunk-reader-….py KEY DEST RANGES [name=value …]"


@dataclass(frozen=True)
class Chunk:
    """One range of an object.

    Attributes:
        start: its first byte.
        end: its last byte, included.
        block_id: the id of its block where frames are written.
        aligned: a line is known to begin at `start` (skip_first_line=False); otherwise the byte
            before tells, also where skip_first_line=True: a line that begins exactly on the
            boundary is ours.
    """

    start: int
    end: int
    block_id: int = 0
    aligned: bool = False


class ByteSource(Protocol):
    """What `lines_of` reads: an object of known size."""

    def stream(self, first: int, last: int) -> Iterator[bytes]:
        """Yields the bytes from `first` to `last`, both included."""


class Lines:
    """Cuts whole lines out of the bytes around a range. No I/O.

    Attributes:
        done: nothing that follows is ours.

    Args:
        position: offset of the first byte that `cut` is given.
        end: offset after the range's last byte; a line that begins at or after it is not ours.
        skipping: the line under way at `position` belongs to the range before.
    """

    def __init__(self, position: int, end: int, *, skipping: bool) -> None:
        self._position = position
        self._end = end
        self._skipping = skipping
        self.done = end <= position

    def cut(self, data: bytes) -> memoryview:
        """Takes the next bytes of the object; returns those of them that are in our lines."""
        start, stop = 0, len(data)
        if self._skipping:
            newline = data.find(b"\n")
            self._skipping = newline < 0
            start = stop if self._skipping else newline + 1
            # Where the line under way ends beyond our range, no line begins in it.
            self.done = self._position + start >= self._end
        if not self.done and not self._skipping:
            # Our last line ends with the first newline at or after the range's last byte.
            newline = data.find(b"\n", max(self._end - 1 - self._position, start))
            if newline >= 0:
                stop, self.done = newline + 1, True
        elif self.done:
            stop = start
        self._position += len(data)
        return memoryview(data)[start:stop]


def lines_of(reader: ByteSource, size: int, chunk: Chunk) -> Iterator[memoryview]:
    """Yields the lines of one range, in pieces of any size.

    Args:
        reader: the object.
        size: its length; the range is clamped to it.
        chunk: the range.
    """
    end = min(chunk.end + 1, size)
    if end <= chunk.start:
        return
    # From the byte before: if it is a newline, a line begins exactly at our start.
    skipping = not chunk.aligned and chunk.start > 0
    first = chunk.start - skipping
    lines = Lines(first, end, skipping=skipping)
    for data in _following(reader, first, end, size):
        piece = lines.cut(data)
        if piece:
            yield piece
        if lines.done:
            return


def _following(reader: ByteSource, first: int, end: int, size: int) -> Iterator[bytes]:
    """The bytes from `first` on: the range and a little beyond it, then growing steps."""
    step = 64 << 10
    while first < size:
        end = min(end + step, size)
        yield from reader.stream(first, end - 1)
        first = end
        step = min(step * 4, 64 << 20)


def parse_chunks(text: str) -> list[Chunk]:
    """Reads RANGES: `bytes=A-B`, or a JSON list of {start, end, block_id, …}.

    Raises:
        UsageError: it is neither; names what is wrong.
    """
    if text.startswith("bytes="):
        start, end = parse_span(text)
        return [Chunk(start, end)]
    try:
        listed = json.loads(text)
        return [
            Chunk(
                max(int(item["start"]), 0),
                int(item["end"]),
                int(item.get("block_id", number)),
                aligned=not is_true(str(item.get("skip_first_line", True))),
            )
            for number, item in enumerate(listed)
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"the ranges cannot be read ({error!r}): {text[:200]}",
            next_step='use bytes=A-B or [{"start": A, "end": B, "block_id": I}, …]',
        ) from error


def parse_span(text: str) -> tuple[int, int]:
    """Reads `bytes=A-B`; B may be less than A, or -1 (an empty range).

    Raises:
        UsageError: it has another form.
    """
    first, dash, last = text.removeprefix("bytes=").partition("-")
    sign = -1 if last.startswith("-") else 1
    last = last.removeprefix("-")
    if text.startswith("bytes=") and dash and first.isdecimal() and last.isdecimal():
        return int(first), sign * int(last)
    raise UsageError(f"{text!r} is no range", next_step="use bytes=FIRST-LAST, both inclusive")


def parse_names(args: Sequence[str]) -> dict[str, str]:
    """Reads `name=value` arguments; the same name again counts."""
    return {name: value for name, equals, value in (a.partition("=") for a in args) if equals}


def is_true(text: str) -> bool:
    """Reads a flag as people write it: True, true, 1, yes."""
    return text.strip().lower() in ("1", "true", "yes", "on")


def shard_reader(argv: Sequence[str]) -> int:
    """`s3-shard-reader.py KEY DEST bytes=A-B …`: the lines of one range, never framed."""

    def body() -> int:
        if len(argv) < 3:
            raise UsageError("KEY, DEST and a range are needed", next_step=_SHARD_USAGE)
        key, destination, *rest = argv
        names = parse_names(rest)
        if "bytes" not in names:
            raise UsageError("no bytes=A-B given", next_step=_SHARD_USAGE)
        start, end = parse_span(f"bytes={names['bytes']}")
        _copy(key, destination, [Chunk(start, end)], framed=False)
        return 0

    return storage.run("s3-shard-reader", body)


def chunk_reader(argv: Sequence[str]) -> int:
    """`s3-chunk-reader-*.py KEY DEST RANGES …`: one logical block for each listed range."""

    def body() -> int:
        if len(argv) < 3:
            raise UsageError("KEY, DEST and RANGES are needed", next_step=_CHUNK_USAGE)
        key, destination, ranges, *rest = argv
        names = parse_names(rest)
        chunks = parse_chunks(ranges)
        if "skip_first_line" in names and len(chunks) == 1:
            chunks = [replace(chunks[0], aligned=not is_true(names["skip_first_line"]))]
        _copy(key, destination, chunks, framed=is_true(names.get("write_headers", "true")))
        return 0

    return storage.run("s3-chunk-reader", body)


def _copy(key: str, destination: str, chunks: list[Chunk], *, framed: bool) -> None:
    config = Config.from_env()
    bucket = storage.bucket(config)
    # Open first: if S3 refuses, the reader must see an end, not wait for a writer for ever.
    target = open_destination(destination)
    grow(target)
    from punchlib.aws.clients import client
    from punchlib.runtime.s3_reader import ObjectReader

    reader = ObjectReader(client("s3", config), bucket, key)
    size = reader.size()
    for chunk in chunks:
        for piece in lines_of(reader, size, chunk):
            if framed:
                header = BlockHeader(chunk.block_id, len(piece), is_last=False)
                write_all(target, header.encode(), piece)
            else:
                write_all(target, piece)
        if framed:
            # Ends the block, and is all of an empty one.
            write_all(target, BlockHeader(chunk.block_id, 0, is_last=True).encode())
