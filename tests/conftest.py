"""Fixtures that any test may ask for, and the rule that CI skips nothing that it is there for."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Generator

import pytest

from tests.support.ministack import ministack

__all__ = ["ministack"]


def pytest_configure() -> None:
    """Who starts us in a shell's background, or by nohup, hands down signals that are ignored.

    All that a test starts would ignore them too.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            usual = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)
    # What is kept of runs stays out of the home of who runs the tests.
    folder = tempfile.mkdtemp(prefix="punch-test-state-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["XDG_STATE_HOME"] = folder


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
