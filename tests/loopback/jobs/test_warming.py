"""Workers that are started before a job: how many there are, and who could not be had."""

from __future__ import annotations

import threading
import time
from typing import Any

from punchlib.jobs import warming
from punchlib.jobs.launch import NodeLost
from punchlib.local.cloud import LocalCloud
from punchlib.node.probe_event import Probe


def test_fresh_workers(cloud: LocalCloud) -> None:
    """The embedded cloud starts one for each call; all are held at the same time."""
    found = warming.warm(cloud.probed["lambda"].probe, 3, hold=1.0)
    assert (found.cold, found.warm, found.lost) == (3, 0, ())
    assert 1.0 <= found.seconds < 60
    assert found.sentence().startswith("3 workers are warm after")


def test_one_that_is_warm_says_so(cloud: LocalCloud) -> None:
    """The EC2 handler is always there."""
    found = warming.warm(cloud.probed["ec2"].probe, 1, hold=0.0)
    assert (found.cold, found.warm) == (0, 1)


class Throttled:
    """A function that may run two at once, and counts how many it does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0

    def probe(self, probe: Probe) -> dict[str, Any]:
        with self._lock:
            if self._running == 2:
                raise NodeLost("Lambda refused to run 'f': TooManyRequestsException")
            self._running += 1
        time.sleep(probe.seconds)
        return {"probe": "warm", "cold": True}


def test_who_could_not_be_had() -> None:
    found = warming.warm(Throttled().probe, 5, hold=0.2)
    assert (found.cold, len(found.lost)) == (2, 3)
    assert "3 could not be had" in found.sentence()
