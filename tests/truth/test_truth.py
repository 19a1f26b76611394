"""A fixed share of the drawn suite; `make truth` draws thousands."""

from __future__ import annotations

import os

import pytest

from tests.truth.suite import drawn, run_all, text
from tests.truth.world import world

CASES = 40


@pytest.mark.nat
def test_right_bytes_or_no_object() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: small disks are mounted")
    with world() as there:
        report = run_all(there, drawn(CASES, "make test"))
    assert report.good, text(report)
