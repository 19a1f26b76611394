"""Lines in pieces: for split and auto-split, and for ranges of an object."""

import os
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from punchlib.errors import UsageError
from punchlib.runtime.lines import LineReader, after_newline
from punchlib.runtime.s3_ranges import Chunk, lines_of, parse_chunks, parse_span

TEXTS = st.lists(st.sampled_from([b"a", b"\n", b"bb\n", b"ccc"]), max_size=40).map(b"".join)


class Object:
    """An object that arrives in small pieces."""

    def __init__(self, data: bytes, piece: int) -> None:
        self.data = data
        self.piece = piece

    def stream(self, first: int, last: int) -> Iterator[bytes]:
        assert 0 <= first <= last < len(self.data)
        for at in range(first, last + 1, self.piece):
            yield self.data[at : min(at + self.piece, last + 1)]


def lines_by_first_byte(data: bytes, start: int, end: int) -> bytes:
    """The rule itself: the lines whose first byte is in [start, end)."""
    out, at = b"", 0
    while at < len(data):
        stop = data.find(b"\n", at) + 1 or len(data)
        if start <= at < end:
            out += data[at:stop]
        at = stop
    return out


@settings(max_examples=500)
@given(TEXTS, st.integers(0, 40), st.integers(-3, 50), st.integers(1, 9))
def test_a_line_belongs_to_the_range_of_its_first_byte(
    data: bytes, start: int, last: int, piece: int
) -> None:
    got = b"".join(lines_of(Object(data, piece), len(data), Chunk(start, last)))
    assert got == lines_by_first_byte(data, start, last + 1)


@settings(max_examples=300)
@given(TEXTS, st.lists(st.integers(0, 40), max_size=8), st.integers(1, 9))
def test_neighbours_have_everything_once(data: bytes, cuts: list[int], piece: int) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [
        b"".join(lines_of(Object(data, piece), len(data), Chunk(start, end - 1)))
        for start, end in pairwise(edges)
    ]
    assert b"".join(parts) == data


def test_a_line_beyond_the_first_read_ahead_is_whole() -> None:
    data = b"a\n" + b"x" * 300_000 + b"\nb\n"
    got = b"".join(lines_of(Object(data, 70_000), len(data), Chunk(0, 4)))
    assert got == data[:-2]


@pytest.mark.parametrize("text", ["bytes=0--1", "bytes=5-2"])
def test_empty_ranges_are_understood(text: str) -> None:
    start, last = parse_span(text)
    assert not list(lines_of(Object(b"abc\n", 4), 4, Chunk(start, last)))


@pytest.mark.parametrize("text", ["0-5", "bytes=", "bytes=a-b", "bytes=-5", "bytes=5"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no range"):
        parse_span(text)


def test_chunks_keep_their_order_and_ids() -> None:
    text = (
        '[{"start": 10, "end": 19, "block_id": 7, "shard_id": 1, "skip_first_line": false},'
        ' {"start": 30, "end": 39, "block_id": 3, "skip_first_line": true}]'
    )
    assert parse_chunks(text) == [Chunk(10, 19, 7, aligned=True), Chunk(30, 39, 3)]
    assert parse_chunks("bytes=1-2") == [Chunk(1, 2)]


@pytest.mark.parametrize("text", ["nonsense", "[1]", '[{"start": 1}]', "{}x"])
def test_unreadable_chunks_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        parse_chunks(text)


@settings(max_examples=300)
@given(TEXTS, st.lists(st.integers(0, 6), max_size=5))
def test_a_line_reader_takes_what_it_is_told(data: bytes, counts: list[int]) -> None:
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    try:
        reader = LineReader(read)
        lines = data.splitlines(keepends=True)
        for count in counts:
            assert b"".join(reader.take(count)) == b"".join(lines[:count])
            lines = lines[count:]
        assert b"".join(reader.take(None)) == b"".join(lines)
    finally:
        os.close(read)


@given(st.integers(1, 20_000))
def test_after_newline_counts(number: int) -> None:
    data = b"".join(b"x" * (n % 7) + b"\n" for n in range(20_000))
    cut = after_newline(data, number)
    assert data.count(b"\n", 0, cut) == number
    assert data[cut - 1 : cut] == b"\n"
