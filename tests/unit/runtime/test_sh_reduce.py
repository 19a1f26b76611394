"""`sh-reduce`: sums of counts. That they are right for real commands: tests/unit/sh."""

from __future__ import annotations

import io

import pytest

from punchlib.errors import StreamBroken
from punchlib.runtime.sh_reduce import added, adjacent, merged


def files(*contents: bytes) -> list[io.BytesIO]:
    return [io.BytesIO(content) for content in contents]


def test_counts_that_are_wider_than_seven_digits() -> None:
    got = merged(files(b"9999999 a\n", b"      1 a\n123456789 b \n"))  # type: ignore[arg-type]
    assert b"".join(got) == b"10000000 a\n123456789 b \n"


def test_a_group_over_several_pieces() -> None:
    pieces = files(b"      1 a\n", b"      2 a\n", b"", b"      3 a\n      1 b\n")
    assert b"".join(adjacent(pieces)) == b"      6 a\n      1 b\n"  # type: ignore[arg-type]


def test_the_largest_of_each_column() -> None:
    pieces = files(b"3 9\n", b"20 1\n")
    assert b"".join(added(pieces, max)) == b"     20       9\n"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [b"", b"a\n", b"1\n2\n", b"      1 2 3", b"1\n" * 40_000], ids=lambda b: repr(b[:9])
)
def test_what_is_no_count_is_no_sum(wrong: bytes) -> None:
    with pytest.raises(StreamBroken):
        list(added(files(b"1\n", wrong)))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [b"a\n", b"      1 cut", b"1\n"])
def test_what_is_no_output_of_uniq(wrong: bytes) -> None:
    with pytest.raises(StreamBroken):
        list(adjacent(files(wrong)))  # type: ignore[arg-type]
