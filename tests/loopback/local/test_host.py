"""The process whose forks are the local cloud: its share of a busy machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from punchlib.local.host import PRECEDENCE, Host
from tests.support.jobtools import wait_until


def test_who_serves_all_nodes_has_more_than_each_of_them() -> None:
    if os.geteuid() != 0 or not Path("/proc/self/autogroup").exists():
        pytest.skip("it takes root, and a kernel that shares by sessions")
    host = Host(os.environ, "")
    try:
        group = Path(f"/proc/{host._process.pid}/autogroup")
        wait_until(lambda: group.read_text().split()[-1] == PRECEDENCE)
    finally:
        host.close()
