"""A finding never has an empty field, and the worst decides."""

from __future__ import annotations

import pytest

from punchlib.doctor.finding import Finding, Level, fail, ok, warn, worst


@pytest.mark.parametrize(
    ("name", "level", "what", "step"),
    [
        ("", Level.OK, "text", ""),
        ("name", Level.OK, "", ""),
        ("name", Level.WARN, "text", ""),
        ("name", Level.FAIL, "text", ""),
    ],
)
def test_no_field_is_empty(name: str, level: Level, what: str, step: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        Finding(name, level, what, step)


def test_the_worst_decides() -> None:
    good, so_so, bad = ok("a", "b"), warn("a", "b", "c"), fail("a", "b", "c")
    assert [worst(x) for x in ([], [good], [good, so_so], [bad, so_so, good])] == [
        Level.OK,
        Level.OK,
        Level.WARN,
        Level.FAIL,
    ]
    assert [level.exit_code for level in Level] == [0, 1, 2]


def test_it_survives_the_way_from_a_node() -> None:
    for finding in (ok("a", "b"), warn("a", "b", "c"), fail("a", "b", "c")):
        assert Finding.from_json(finding.to_json()) == finding
    assert ok("a", "b").to_json() == {"name": "a", "level": "ok", "what": "b"}


@pytest.mark.parametrize(
    "data", [{}, {"name": "a", "level": "?", "what": "b"}, {"name": "", "level": "ok", "what": ""}]
)
def test_what_is_none(data: dict[str, str]) -> None:
    with pytest.raises((KeyError, ValueError)):
        Finding.from_json(data)
