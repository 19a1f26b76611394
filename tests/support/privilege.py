"""A process to which the modes of files apply, whoever runs the tests."""

from __future__ import annotations

import os

_READS_ALL = "-dac_override,-dac_read_search"
#: In front of a command: takes away what lets root read what is closed. Nothing for others.
MODES_APPLY = (
    () if os.geteuid() else ("setpriv", f"--bounding-set={_READS_ALL}", f"--inh-caps={_READS_ALL}")
)
