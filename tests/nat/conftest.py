"""The lab for these tests: it needs root, and CI may not do without it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.netlab import Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("the NAT tests need root for network namespaces, and CI may not skip them")
        pytest.skip("needs root for network namespaces")
    with Lab() as lab:
        yield lab
