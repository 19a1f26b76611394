"""docs/diagrams shows the tables as they are."""

from __future__ import annotations

import enum

import pytest

from tests.support.diagrams import DIAGRAMS, FOLDER, Diagram


@pytest.mark.parametrize("diagram", DIAGRAMS, ids=lambda diagram: diagram.name)
def test_the_committed_diagram_is_not_old(diagram: Diagram) -> None:
    assert (FOLDER / f"{diagram.name}.md").read_text() == diagram.text(), "run `make diagrams`"


def test_nothing_else_lies_there() -> None:
    assert {p.name for p in FOLDER.iterdir()} == {f"{d.name}.md" for d in DIAGRAMS}


def test_a_table_is_drawn_whole() -> None:
    class S(enum.Enum):
        A = "first"
        B = "last"

    class W(enum.Enum):
        GO = "it goes"
        STAY = "it stays"

    table = {(S.A, W.GO): S.B, (S.A, W.STAY): S.A}
    text = Diagram("x", "X", "somewhere", {"": table}).text()
    for line in ("[*] --> A", "A --> B: GO", "A --> A: STAY", "B --> [*]", "| B | last |"):
        assert line in text
