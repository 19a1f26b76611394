"""A representative part of the grid; `make nat-grid` runs all of it."""

from __future__ import annotations

import pytest

from tests.nat.cell import TIME_FACTOR, run
from tests.nat.expected import Cell, cells, in_principle
from tests.support.netlab import Lab
from tests.support.netlab_kinds import KINDS
from tests.support.tiers import quick

QUICK = {
    "lambda,ec2-open",
    "eim-rst,lambda",
    "eim-random-rst,eim-random-rst",
    "aws-nat-gateway,ec2-open",
    "aws-nat-gateway,lambda",
    "double-rst,eim-rst",
    "home,home",
    "same-lan,same-lan",
    "lambda-workers,lambda-workers",
    "old-lambda,eim-rst",
}


@pytest.mark.nat
@pytest.mark.parametrize(
    "cell", quick([c for c in cells() if c.name in QUICK], 5), ids=lambda c: c.name
)
def test_cell(lab: Lab, cell: Cell) -> None:
    """The route that is written down, with the real program."""
    outcome = run(lab, cell)
    assert outcome.as_expected, outcome.explain()


@pytest.mark.slow
@pytest.mark.nat
def test_an_old_peer_that_nothing_can_reach_gives_an_error_and_no_hang(lab: Lab) -> None:
    # Random ports on our side, and an old peer has no other route than its one connect.
    cell = Cell(KINDS["aws-nat-gateway"], KINDS["old-lambda"], "s")
    outcome = run(lab, cell, patience=8.0 * TIME_FACTOR)
    ours = outcome.ends[0]
    assert ours.returncode == 4, outcome.explain()
    said = "\n".join(line for _, line in ours.lines)
    assert "no connection came about" in said and "next:" in said
    assert "Traceback" not in said


def test_the_quick_part_exists() -> None:
    assert {cell.name for cell in cells()} >= QUICK


def test_the_grid_is_large_and_no_cell_is_there_twice() -> None:
    names = [cell.name for cell in cells()]
    assert len(names) >= 64
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "cell",
    [c for c in cells() if not (c.together or c.a.old_peer or c.b.old_peer)],
    ids=lambda c: c.name,
)
def test_what_is_written_down_agrees_with_the_principle(cell: Cell) -> None:
    assert cell.route == in_principle(cell.a, cell.b)
