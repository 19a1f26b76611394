"""A script's stderr on its way through us."""

from __future__ import annotations

import os
import re

import pytest

from punchlib.node.stderr_tail import TAIL, StderrTail


def passed(*pieces: bytes) -> StderrTail:
    tail = StderrTail("node")
    child = os.dup(tail.writer())
    tail.start()
    for piece in pieces:
        os.write(child, piece)
    os.close(child)
    tail.finish()
    return tail


def test_each_line_is_passed_on_with_name_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    tail = passed(b"one\ntw", b"o\n\xff", b"last")
    shown = capsys.readouterr().err.splitlines()
    assert [re.sub(r"\+\d+\.\d{3}s", "+T", line) for line in shown] == [
        "[node +T] one",
        "[node +T] two",
        "[node +T] \N{REPLACEMENT CHARACTER}last",
    ]
    assert tail.text() == "one\ntwo\n\N{REPLACEMENT CHARACTER}last"


def test_only_the_end_is_kept_and_a_line_without_an_end_is_cut(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = passed(b"a" * 10_000, b"b" * TAIL).text()
    assert text == "b" * TAIL
    shown = capsys.readouterr().err.splitlines()
    assert sum(line.count("a") for line in shown) == 10_000
    assert max(map(len, shown)) < 5_000


def test_a_child_that_could_not_be_started() -> None:
    tail = StderrTail("node")
    descriptor = tail.writer()
    tail.finish()
    with pytest.raises(OSError):
        os.fstat(descriptor)
    assert tail.text() == ""
