"""The frame of `r_split`, `r_wrap`, `r_unwrap` and `r_merge`. No I/O.

Before each piece of a block stand 24 bytes, little-endian: int64 block id, uint64 size of the
piece, int8 isLast, 7 bytes of padding that readers ignore. A logical block is its pieces up to
and including the one with isLast=1.
"""

from __future__ import annotations

from struct import Struct

from punchlib.errors import StreamBroken

_FRAME = Struct("<qQb7x")
HEADER_SIZE = _FRAME.size
_NO_ID = bytes(8)


class BlockHeader:
    """One frame header.

    Attributes:
        block_id: number of the logical block, from 0.
        size: bytes of payload that follow.
        is_last: this piece ends its logical block.
    """

    __slots__ = ("block_id", "is_last", "size")

    def __init__(self, block_id: int, size: int, is_last: bool) -> None:
        self.block_id = block_id
        self.size = size
        self.is_last = is_last

    def encode(self) -> bytes:
        return _FRAME.pack(self.block_id, self.size, self.is_last)


def decode(data: bytes) -> BlockHeader:
    """Decodes the 24 bytes of a header.

    Raises:
        StreamBroken: these bytes are no header.
    """
    header = parse(data)
    if header is None:
        raise StreamBroken(
            f"no frame header where one should be: {data[:HEADER_SIZE]!r}",
            next_step="the input must come from r_split without -r, or from r_wrap",
        )
    return header


def parse(data: bytes) -> BlockHeader | None:
    """Decodes a header, or returns None for bytes that cannot be one.

    Text never passes: its 17th byte would have to be 0 or 1.
    """
    if len(data) != HEADER_SIZE:
        return None
    block_id, size, is_last = _FRAME.unpack(data)
    if block_id < 0 or size >> 62 or is_last not in (0, 1):
        return None
    return BlockHeader(block_id, size, bool(is_last))


def is_cut_header(data: bytes) -> bool:
    """Are these few bytes, all that there were, the beginning of a first header?

    Its id is 0: eight zero bytes, which no text begins with.
    """
    return 0 < len(data) < HEADER_SIZE and data[:8] == _NO_ID[: len(data)]


def truncated(missing: int, header: BlockHeader | None = None) -> StreamBroken:
    """The error for input that ends inside a frame."""
    where = "a frame header" if header is None else f"block {header.block_id}"
    return StreamBroken(
        f"the input ended inside {where}, {missing} bytes short",
        next_step="look for the stage before this one that failed first",
    )
