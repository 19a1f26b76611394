"""How a stream of unknown length becomes parts."""

import os

import pytest

from punchlib.errors import StorageError
from punchlib.runtime.s3_put import part_size, parts

MIB = 1 << 20


def test_parts_grow_and_then_end() -> None:
    sizes = [part_size(number) for number in range(1, 10_001)]
    assert sizes == sorted(sizes)
    assert min(sizes) >= 5 * MIB
    assert sum(sizes) >= 240 << 30
    with pytest.raises(StorageError, match="10,000 parts"):
        part_size(10_001)


@pytest.mark.parametrize("size", [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 20 * MIB])
def test_everything_is_in_the_parts(size: int) -> None:
    fd = os.memfd_create("source")
    try:
        os.truncate(fd, size)
        cut = [len(part) for part in parts(fd)]
    finally:
        os.close(fd)
    assert sum(cut) == size
    assert len(cut) == -(-size // (8 * MIB))
