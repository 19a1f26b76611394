"""The frame codec."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.errors import StreamBroken
from punchlib.runtime import blocks
from punchlib.runtime.blocks import BlockHeader


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**62 - 1), st.booleans())
def test_what_is_encoded_is_decoded(block_id: int, size: int, is_last: bool) -> None:
    data = BlockHeader(block_id, size, is_last).encode()
    assert len(data) == blocks.HEADER_SIZE == 24
    header = blocks.decode(data)
    assert (header.block_id, header.size, header.is_last) == (block_id, size, is_last)


def test_the_layout_is_the_documented_one() -> None:
    data = BlockHeader(1, 0x0203, True).encode()
    assert data == b"\1\0\0\0\0\0\0\0" + b"\3\2\0\0\0\0\0\0" + b"\1" + bytes(7)


@given(st.binary(min_size=7, max_size=7))
def test_padding_is_ignored(padding: bytes) -> None:
    header = blocks.decode(BlockHeader(5, 6, False).encode()[:17] + padding)
    assert (header.block_id, header.size, header.is_last) == (5, 6, False)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\1"), min_size=24))
def test_text_is_never_taken_for_a_header(text: str) -> None:
    assert blocks.parse(text.encode()[:24]) is None


@given(st.binary(max_size=40))
def test_any_bytes_give_a_header_or_our_error(data: bytes) -> None:
    try:
        header = blocks.decode(data)
    except StreamBroken as error:
        assert "header" in str(error)
    else:
        assert header.block_id >= 0
        assert header.encode()[:17] == data[:17]


@pytest.mark.parametrize(("data", "expected"), [(b"", False), (bytes(3), True), (b"abc\n", False)])
def test_a_cut_first_header_is_told_from_short_text(data: bytes, expected: bool) -> None:
    assert blocks.is_cut_header(data) is expected
