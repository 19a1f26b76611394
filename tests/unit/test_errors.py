"""The tree of errors, their exit codes, and text from strangers."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from punchlib import errors
from punchlib.errors import Cause, PunchError, StreamBroken, escape


def tree(kind: type[PunchError]) -> list[type[PunchError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"(\w+) +(\d)  \S", errors.__doc__ or "")
    ours = {kind.__name__: kind for kind in tree(PunchError) if kind.__module__ == errors.__name__}
    assert {name: ours[name].exit_code for name, _ in drawn} == {n: int(c) for n, c in drawn}
    assert {name for name, _ in drawn} == set(ours)


def test_every_exit_code_has_its_part_in_the_troubleshooting_page() -> None:
    page = (Path(__file__).parents[2] / "docs/troubleshooting.md").read_text()
    for code in {kind.exit_code for kind in tree(PunchError)}:
        assert re.search(rf"\b{code}\b", page), code


def test_a_message_and_the_next_step() -> None:
    assert str(PunchError("it failed")) == "it failed"
    assert str(PunchError("it failed", next_step="try again")) == "it failed\n  next: try again"
    broken = StreamBroken("the peer is dead", at_byte=7)
    assert (broken.cause, broken.at_byte, broken.exit_code) == (Cause("the peer is dead"), 7, 6)


@given(st.text())
def test_what_a_stranger_says_can_be_printed(text: str) -> None:
    shown = escape(text, limit=20)
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert len(shown) <= 10 * 20 + 1
