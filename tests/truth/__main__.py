"""`make truth`: TRUTH=N cases (5,000), TRUTH_SEED=S, or one again: TRUTH_CASE='{…}' [TRUTH=N]."""

from __future__ import annotations

import os
import signal
import sys

from tests.truth.case import Case
from tests.truth.suite import drawn, run_all, text
from tests.truth.world import world


def main() -> int:
    seed = os.environ.get("TRUTH_SEED") or "1"
    if again := os.environ.get("TRUTH_CASE"):
        chosen = [Case.parse(again)] * int(os.environ.get("TRUTH") or "5")
    else:
        chosen = drawn(int(os.environ.get("TRUTH") or "5000"), seed)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with world() as there:
        report = run_all(there, chosen, progress=True)
    print(text(report))
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
