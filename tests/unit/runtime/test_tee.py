"""dgsh-tee: its command line, and the window that it holds."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from punchlib.errors import PunchError, UsageError
from punchlib.runtime.dgsh_tee import parse
from punchlib.runtime.spool import Spool


def test_every_option_of_the_generated_scripts() -> None:
    args = [
        "-i",
        "#fifo1",
        "-o",
        "a b",
        "-o",
        "#fifo2",
        "-I",
        "-m",
        "1G",
        "-b5M",
        "-fM",
        "-T",
        "/x",
    ]
    options = parse(args)
    assert options.source == "#fifo1"
    assert options.targets == ["a b", "#fifo2"]
    assert options.eager
    assert options.report
    assert options.memory == 1 << 30
    assert options.buffer <= 5 << 20
    assert options.folder == "/x"


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["-o", "x", "-q"], "-q"),
        (["-o"], "-o needs a value"),
        (["-o", "x", "-m", "5X"], "'5X'"),
        (["-o", "x", "-b", "0"], "'0'"),
        (["-o", "x", "stray"], "'stray'"),
        (["-I"], "no output"),
    ],
)
def test_wrong_arguments_are_named(args: list[str], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        parse(args)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=200), max_size=30),
    st.integers(0, 500),
    st.lists(st.integers(0, 1), max_size=60),
)
def test_a_window_gives_back_what_it_took(
    chunks: list[bytes], memory: int, readers: list[int]
) -> None:
    spool = Spool(memory, "/tmp")
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
