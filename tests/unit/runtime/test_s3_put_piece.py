"""However pieces are as large, they are one upload as S3 takes it."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.errors import StorageError
from punchlib.runtime import s3_put, s3_put_piece
from punchlib.runtime.s3_put_piece import MOST_PIECES, After, Before, Piece, send

LEAST = 5
SIZES = ((0.1, 8), (0.4, 16), (1.0, 32))


class Memory(s3_put.Upload):
    """Keeps the parts; the rules of S3 are checked below, and by a real API in loopback tests."""

    def __init__(self, kept: dict[int, bytes]) -> None:
        self.kept = kept
        self.parts = []

    def send(self, numbered: Any) -> None:
        for number, data in numbered:
            assert number not in self.kept
            self.kept[number] = bytes(data)
            self.parts.append({"PartNumber": number, "ETag": str(len(data))})


def put(
    pieces: list[bytes], of: int | None = None
) -> tuple[list[dict[str, Any]], dict[int, bytes]]:
    """All pieces at once, each in a thread; the last one's parts, and what was kept."""
    count = of or len(pieces)
    kept: dict[int, bytes] = {}
    links = [os.pipe() for _ in pieces[1:]]
    uploads = [Memory(kept) for _ in pieces]

    def one(n: int) -> None:
        fd = os.memfd_create("piece")
        os.pwrite(fd, pieces[n], 0)
        before = Before(links[n - 1][0] if n else None)
        last = n == len(pieces) - 1
        out = None if last else links[n][1]
        after = After(out)
        send(uploads[n], Piece(n + 1, count, fd), before, after, last=last)
        after.tell(uploads[n].parts)
        os.close(fd)
        if out is not None:
            os.close(out)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(len(pieces))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for fd, _ in links:
        os.close(fd)
    return uploads[-1].parts, kept


@pytest.fixture(autouse=True, scope="module")
def small() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3_put_piece, "LEAST", LEAST)
        patch.setattr(s3_put_piece, "_STEPS", SIZES)
        yield


@given(st.lists(st.binary(max_size=70), min_size=1, max_size=8))
def test_pieces_follow_one_another(pieces: list[bytes]) -> None:
    parts, kept = put(pieces)
    numbers = [part["PartNumber"] for part in parts]
    assert numbers == sorted(kept)
    assert numbers
    assert b"".join(kept[n] for n in numbers) == b"".join(pieces)
    assert all(len(kept[n]) >= LEAST for n in numbers[:-1])
    assert 1 <= numbers[0] <= numbers[-1] <= s3_put.MOST_PARTS


def test_a_piece_has_its_share_of_the_numbers() -> None:
    _, kept = put([b"a" * 64, b"b" * 64], of=MOST_PIECES)
    assert {number for number in kept if number < s3_put.MOST_PARTS} <= set(range(1, 21))
    with pytest.raises(StorageError, match="than the 9 parts that it may have"):
        list(Piece(1, MOST_PIECES, os.open("/dev/zero", os.O_RDONLY)).body())


@pytest.mark.parametrize("said", [b"", b'{"left": 3}\nab', b'{"left": 0}\n[{"Part', b"{}\n", b"[]"])
def test_a_piece_before_that_ended_early(said: bytes) -> None:
    reading, writing = os.pipe()
    os.write(writing, said)
    os.close(writing)
    before = Before(reading)
    with pytest.raises(StorageError, match="has ended too early"):
        before.left()
        before.parts()
    os.close(reading)
