"""The splitting logic against a naive model of docs/scripts.md: first round, rounds, long lines."""

import os
from collections.abc import Callable, Iterator

from hypothesis import example, given, settings
from hypothesis import strategies as st

from punchlib.runtime.holding import HoldingPipe, held_rounds
from punchlib.runtime.r_split_pieces import Piece, split

# Few letters and many newlines: boundaries are hit all the time.
TEXTS = st.lists(st.sampled_from([b"a", b"bb", b"\n", b"cccc\n", b"dd\n"]), max_size=60).map(
    b"".join
)


def filler(data: bytes) -> Callable[[memoryview], int]:
    at = 0

    def fill(view: memoryview) -> int:
        nonlocal at
        part = data[at : at + len(view)]
        view[: len(part)] = part
        at += len(part)
        return len(part)

    return fill


def pieces(data: bytes, outputs: int, batch: int) -> list[tuple[int, int, bytes, bool]]:
    return [
        (piece.output, piece.block_id, bytes(piece.data), piece.is_last)
        for piece in split(filler(data), outputs, batch)
    ]


def pieces_by_pipe(
    data: bytes, outputs: int, batch: int, tail: int
) -> list[tuple[int, int, bytes, bool]]:
    """The same through a real pipe, of which only the last `tail` bytes of a block are seen."""
    source, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    hold = HoldingPipe(65536)

    def fill(view: memoryview) -> int:
        return os.readv(source, [view]) if view else 0

    def later(block: int, carry: bytes, complete: bool) -> Iterator[Piece]:
        return held_rounds(source, hold, outputs, batch, block, carry, complete, min(tail, batch))

    try:
        return [
            (p.output, p.block_id, bytes(p.data) + hold.take(p.held) + p.after, p.is_last)
            for p in split(fill, outputs, batch, later)
        ]
    finally:
        os.close(source)
        hold.close()


def model(data: bytes, outputs: int, batch: int) -> list[tuple[int, int, bytes, bool]]:
    """The same in a plain way: everything in memory, one slice after the other."""
    if not data:
        return []
    out: list[tuple[int, int, bytes, bool]] = []
    full = len(data) >= outputs * batch
    size = batch if full else len(data) // outputs
    head = data[: outputs * batch]
    start = 0
    for k in range(outputs - 1):
        newline = head[start : (k + 1) * size].rfind(b"\n")
        end = start + newline + 1
        out.append((k, k, head[start:end], True))
        start = end
    block = outputs - 1
    if not full:
        return [*out, (block, block, head[start:], True)]
    at, rest, complete = len(head), head[start:], True
    # The last block of the round, then one block after the other: all end in the same way.
    while True:
        newline = rest.rfind(b"\n")
        if newline < 0:
            out.append((block % outputs, block, rest, False))
            carry, complete = b"", False
        else:
            out.append((block % outputs, block, rest[: newline + 1], True))
            carry, complete = rest[newline + 1 :], True
        more = data[at : at + batch]
        at += len(more)
        if not carry and not more:
            return out if complete else [*out, (block % outputs, block, b"", True)]
        block += complete
        rest = carry + more
        if len(more) < batch:
            return [*out, (block % outputs, block, rest, True)]


@settings(max_examples=500)
@given(TEXTS, st.integers(1, 5), st.integers(1, 20))
@example(b"no newline at all, and longer than a block", 2, 5)
@example(b"a\nb\nc\nunterminated", 2, 4)
def test_it_splits_as_the_model_does(data: bytes, outputs: int, batch: int) -> None:
    assert pieces(data, outputs, batch) == model(data, outputs, batch)


@settings(max_examples=500)
@given(TEXTS, st.integers(1, 5), st.integers(1, 20), st.integers(1, 6))
def test_by_way_of_the_pipe_it_is_the_same(
    data: bytes, outputs: int, batch: int, tail: int
) -> None:
    assert pieces_by_pipe(data, outputs, batch, tail) == model(data, outputs, batch)


@settings(max_examples=500)
@given(TEXTS, st.integers(1, 5), st.integers(1, 20))
def test_nothing_is_lost_and_no_line_is_cut(data: bytes, outputs: int, batch: int) -> None:
    blocks: dict[int, bytes] = {}
    ended: set[int] = set()
    for output, block, part, is_last in pieces(data, outputs, batch):
        assert output == block % outputs
        assert block not in ended
        blocks[block] = blocks.get(block, b"") + part
        if is_last:
            ended.add(block)
    assert list(blocks) == list(range(len(blocks)))
    assert ended == set(blocks)
    assert b"".join(blocks.values()) == data
    in_order = [b for b in blocks.values() if b]
    assert all(block.endswith(b"\n") for block in in_order[:-1])


def test_a_short_input_is_cut_into_even_blocks() -> None:
    data = b"".join(b"%07d\n" % n for n in range(100))
    sizes = [len(part) for _, _, part, _ in pieces(data, 4, 1_000_000)]
    assert sizes == [200, 200, 200, 200]


def test_an_empty_input_has_no_block() -> None:
    assert pieces(b"", 3, 10) == []


def test_an_unterminated_last_line_is_not_lost() -> None:
    data = b"a\n" * 50 + b"the end"
    assert b"".join(part for _, _, part, _ in pieces(data, 2, 10)) == data


def test_a_long_line_stays_on_one_output() -> None:
    data = b"x\n" * 4 + b"y" * 30 + b"\n" + b"z\n" * 10
    of_the_long_line = {o for o, _, part, _ in pieces(data, 2, 4) if b"y" in part}
    assert len(of_the_long_line) == 1
