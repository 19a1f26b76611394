"""Draws the tables of transitions: `make diagrams` writes docs/diagrams, a test says what is old.

A table is a `dict[(State, what)] → State`, as in `core/transitions.py` and `core/frames.py`; states
and what happens are enums, whose values are words for people.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from punchlib.core import frames, transitions

FOLDER = Path(__file__).parents[2] / "docs" / "diagrams"

Table = Mapping[tuple[Any, Any], Any]


@dataclass(frozen=True)
class Diagram:
    """One page.

    Attributes:
        name: the file's, without its ending.
        title: the page's.
        source: the module that holds the tables.
        tables: what they say ("hears", "says"; "" where there is one) → the table.
    """

    name: str
    title: str
    source: str
    tables: dict[str, Table]

    def text(self) -> str:
        """The page, Markdown with a Mermaid diagram."""
        states = list(dict.fromkeys(s for t in self.tables.values() for s, _ in _edges(t)))
        ends = [
            e for t in self.tables.values() for e in t.values() if not any(e is s for s in states)
        ]
        lines = [
            f"# {self.title}",
            f"Drawn by `make diagrams` from the tables of `{self.source}`.",
            "```mermaid",
            "stateDiagram-v2",
            f"    [*] --> {states[0].name}",
            *(line for label, table in self.tables.items() for line in _arrows(label, table)),
            *(f"    {end.name} --> [*]" for end in dict.fromkeys(ends)),
            "```",
        ]
        words = list(dict.fromkeys([*states, *ends]))
        whats = list(dict.fromkeys(w for t in self.tables.values() for _, w in t))
        lines += _legend("state", words) + _legend("what happens", whats)
        return "\n".join(lines) + "\n"


def _edges(table: Table) -> dict[tuple[Any, Any], list[Any]]:
    edges: dict[tuple[Any, Any], list[Any]] = {}
    for (start, what), end in table.items():
        edges.setdefault((start, end), []).append(what)
    return edges


def _arrows(label: str, table: Table) -> list[str]:
    said = f"{label} " if label else ""
    return [
        f"    {start.name} --> {end.name}: {said}{', '.join(w.name for w in whats)}"
        for (start, end), whats in _edges(table).items()
    ]


def _legend(heading: str, members: list[enum.Enum]) -> list[str]:
    if not all(isinstance(member.value, str) for member in members):
        return []  # the names say it all
    rows = [f"| {member.name} | {member.value} |" for member in members]
    return ["", f"| {heading} | |", "|---|---|", *rows]


def _stream(half: str) -> dict[str, Table]:
    """What one half of a stream says and hears."""
    names = {f"{half}_{verb}": verb.lower() for verb in ("HEARS", "SAYS")}
    found = ((names.get(name.strip("_")), table) for name, table in vars(frames).items())
    return {verb: table for verb, table in found if verb}


DIAGRAMS = (
    Diagram(
        "agreement",
        "How two ends agree on a connection",
        "punchlib/core/transitions.py",
        {"": transitions.TRANSITIONS},
    ),
    Diagram(
        "sender", "A stream, as its sender sees it", "punchlib/core/frames.py", _stream("SENDER")
    ),
    Diagram(
        "receiver",
        "A stream, as its receiver sees it",
        "punchlib/core/frames.py",
        _stream("RECEIVER"),
    ),
)


def main() -> None:
    for diagram in DIAGRAMS:
        (FOLDER / f"{diagram.name}.md").write_text(diagram.text())


if __name__ == "__main__":
    main()
