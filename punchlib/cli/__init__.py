"""The command line.

The first code of ours that runs: from here on, until a command takes SIGINT over, a Ctrl-C ends
the process as it ends any other, and not with a traceback out of some import.
"""

from _signal import SIG_DFL, SIGINT, signal  # type: ignore[import-not-found]

signal(SIGINT, SIG_DFL)
