"""One emulation for all tests that need it; its logs are kept when one of them failed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.emulation import ROOT, Emulation
from tests.e2e.cloud import Cloud

#: Seconds until a NAT forgets an idle connection here; on AWS it takes 350.
FORGETS = 8


@pytest.fixture(scope="session")
def _emulation(request: pytest.FixtureRequest) -> Iterator[Emulation]:
    try:
        os.environ.setdefault("NAT_FORGETS", str(FORGETS))
        emulation = Emulation()
        emulation.up()
    except SystemExit as refusal:
        # Never skipped: whoever runs these tests wants to know.
        pytest.fail(f"the emulation did not come up\n{refusal}", pytrace=False)
    yield emulation
    if request.session.testsfailed:
        folder = ROOT / ".build" / "e2e-logs" / time.strftime("%Y%m%dT%H%M%S")
        emulation.save_logs(folder)
        print(f"\nthe logs of all containers are in {folder}")
    if not os.environ.get("KEEP"):
        emulation.down()


@pytest.fixture
def cloud(_emulation: Emulation, tmp_path: Path) -> Iterator[Cloud]:
    """The emulation as its user sees it, with the function as it was deployed."""
    cloud = Cloud(_emulation, tmp_path)
    yield cloud
    cloud.restore()
