"""How an input is cut: every byte in one piece, in order, and how many pieces there are."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.sh import forecast
from punchlib.sh import plan as planning
from punchlib.sh.pieces import Input, best_width, pieces
from punchlib.sh.plan import WIDEST, Plan
from punchlib.sh.reading import read

SIZES = st.lists(st.integers(0, 100), min_size=1, max_size=12)


def planned(text: str, sizes: list[int]) -> tuple[Plan, dict[str, Input]]:
    names = [f"f{n}" for n in range(len(sizes))]
    plan = planning.make(read(text.format(" ".join(names)), {}))
    return plan, {n: Input(n, size) for n, size in zip(names, sizes, strict=True)}


@given(SIZES, st.integers(1, 20))
def test_ranges_hold_each_byte_once(sizes: list[int], width: int) -> None:
    plan, inputs = planned("cat {} | sort", sizes)
    cut = pieces(plan, width, inputs)
    assert len(cut) == width
    taken = [
        (p.key, byte) for piece in cut for p in piece.parts for byte in range(p.first, p.last + 1)
    ]
    assert taken == [(i.key, b) for i in inputs.values() for b in range(i.size)]


@given(SIZES, st.integers(1, 20))
def test_packed_files_are_whole_and_in_order(sizes: list[int], width: int) -> None:
    plan, inputs = planned("cat {} | zcat | sort", sizes)
    cut = pieces(plan, width, inputs)
    assert 1 <= len(cut) <= width
    keys = [p.key for piece in cut for p in piece.parts]
    assert keys == [i.key for i in inputs.values() if i.size]
    assert all(piece.parts for piece in cut) or len(cut) == 1


@pytest.mark.parametrize(
    "text",
    [
        "cat {} | zcat | wc -l",
        "zcat {} | wc -l",
        "gzip -dc {} | wc -l",
        "cat {} | bunzip2 -c | cat",
    ],
)
def test_what_unpacks_runs_on_each_file(text: str) -> None:
    plan, _ = planned(text, [1, 1])
    assert plan.unpack and plan.has_workers
    assert not plan.tail
    assert plan.told[0].how == "on each file"


@pytest.mark.parametrize(
    "text",
    ["cat {} | gunzip | wc", "gzip -d {}", "cat {} | sort | zcat", "cat {} | A=1 zcat | wc -l"],
)
def test_what_does_not(text: str) -> None:
    plan, _ = planned(text, [1, 1])
    assert not plan.unpack


def test_what_squeezes_runs_on_packed_pieces_and_not_on_turns() -> None:
    """A turn may leave nothing; that a packed file does is an error (sh-reduce some-lines)."""
    plan, _ = planned("zcat {} | tr -s '\\n' | sort", [1, 1])
    assert [command.primed for command in plan.mapped] == [True, False]
    plan, _ = planned("for f in {}; do cat $f; done | tr -s '\\n' | sort", [1, 1])
    assert not plan.mapped


@pytest.mark.parametrize(
    ("text", "sizes", "most", "width"),
    [
        ("cat {} | sort", [0], 9, 1),
        ("cat {} | sort", [1], 9, 1),
        ("cat {} | sort", [1 << 30], 64, 32),
        ("cat {} | sort", [1 << 40], 64, 64),
        ("zcat {} | sort", [1 << 26, 1 << 26], 64, 16),
    ],
)
def test_the_width_goes_by_the_size(text: str, sizes: list[int], most: int, width: int) -> None:
    assert best_width(*planned(text, sizes), most) == width


@pytest.mark.parametrize(("workers", "count"), [(0, 1), (1, 2), (16, 17), (17, 20), (128, 137)])
def test_the_forecast_counts_the_nodes_that_are_made(workers: int, count: int) -> None:
    assert forecast.nodes(workers) == count
    assert workers <= WIDEST


def test_the_manual_is_right_about_concatenations(tmp_path: Path) -> None:
    """RFC 1952, 2.2, on which `zcat` of each file rests."""
    assert gzip.decompress(gzip.compress(b"a\n") + gzip.compress(b"b\n")) == b"a\nb\n"
