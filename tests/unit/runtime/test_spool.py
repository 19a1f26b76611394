"""The window of the stream that a dgsh-tee holds."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.errors import PunchError
from punchlib.runtime.spool import Spool


@given(
    st.lists(st.binary(min_size=1, max_size=200), max_size=30),
    st.integers(0, 500),
    st.lists(st.integers(0, 1), max_size=60),
)
def test_a_window_gives_back_what_it_took(
    chunks: list[bytes], memory: int, readers: list[int]
) -> None:
    spool = Spool(memory, tempfile.gettempdir())
    stream = b"".join(chunks)
    for chunk in chunks:
        spool.append(chunk)
    assert spool.held == len(stream)
    read, write = os.pipe()
    try:
        done = [0, 0]
        got = [b"", b""]
        # Two readers at their own pace, then both to the end.
        for reader in [*readers, *[0] * 200, *[1] * 200]:
            if done[reader] == len(stream):
                continue
            count = spool.write(write, done[reader])
            got[reader] += os.read(read, 1 << 20)
            done[reader] += count
            spool.release(min(done))
        assert got == [stream, stream]
        assert spool.held == 0
    finally:
        os.close(read)
        os.close(write)


def test_a_spill_folder_that_refuses_is_named(tmp_path: Path) -> None:
    spool = Spool(10, str(tmp_path / "missing"))
    spool.append(b"0123456789")
    with pytest.raises(PunchError, match="missing"):
        spool.append(b"x")
