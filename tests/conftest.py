"""Fixtures that any test may ask for, and the rule that CI skips nothing that it is there for."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from tests.support.ministack import ministack

__all__ = ["ministack"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped NAT or container test would be a green light for nothing."""
    report = yield
    needed = any(item.get_closest_marker(name) for name in ("nat", "e2e"))
    if report.skipped and needed and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"CI may not skip this: {report.longrepr}"
    return report
