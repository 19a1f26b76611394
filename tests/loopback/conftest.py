"""One local cloud for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from punchlib.local.cloud import LocalCloud


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as cloud:
        yield cloud
