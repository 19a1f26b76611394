"""`python -m punchlib.node.tethered PARENT recv*…`: pashlib, for as long as PARENT lives.

Who runs it is no script: nothing else would end it when that one is killed.
"""

from __future__ import annotations

import sys

from punchlib.node import sandbox
from punchlib.runtime import engine_client


def main() -> int:
    """Returns pashlib's status."""
    sandbox.die_with_parent(int(sys.argv.pop(1)))
    return engine_client.pashlib()


if __name__ == "__main__":
    sys.exit(main())
