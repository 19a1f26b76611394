"""What `make test` leaves to `make test-all` and CI: see docs/development.md, "Tests"."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def quick(values: Iterable[Any], count: int) -> list[Any]:
    """The parameters of a test, of which only the first `count` run each time."""
    return [
        value if number < count else pytest.param(value, marks=pytest.mark.slow)
        for number, value in enumerate(values)
    ]
