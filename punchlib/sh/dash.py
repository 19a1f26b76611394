"""Asks libdash for a script's syntax tree. Run as a program: it prints the tree as JSON.

A process of its own, because libdash is C with global state: it writes syntax errors to stderr,
and aborts where it does not know how to go on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from punchlib.errors import PunchError, UsageError

#: Seconds; a script of thousands of lines takes milliseconds.
_PATIENCE = 60


class SyntaxRefusedError(Exception):
    """libdash's own words, such as `sh: 3: Syntax error: ")" unexpected`."""


def tree(text: str) -> list[Any]:
    """The top-level commands of a script, each as libdash's nested lists.

    Raises:
        SyntaxRefusedError: it is no shell that libdash reads.
        UsageError: libdash is not installed.
        PunchError: libdash went wrong.
    """
    with tempfile.NamedTemporaryFile("w", prefix="punch-sh-", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        done = subprocess.run(
            [sys.executable, "-m", __name__, file.name],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_PATIENCE,
            check=False,
        )
    if "No module named 'libdash'" in done.stderr:
        raise UsageError(
            "`punch sh` needs libdash, which reads shell", next_step="pip install 'punchlib[sh]'"
        )
    if "Syntax error" in done.stderr:
        raise SyntaxRefusedError(done.stderr.strip().splitlines()[0])
    if done.returncode:
        raise PunchError(f"libdash cannot read this: {done.stderr.strip()[-300:] or 'it aborted'}")
    nodes: list[Any] = json.loads(done.stdout)
    return nodes


def main() -> int:
    """Prints the tree of the script in the file that the first argument names."""
    # Not at the top: whoever imports us for `tree` has no need of it.
    from libdash.parser import ParsingException, parse

    try:
        nodes = [parsed[0] for parsed in parse(str(Path(sys.argv[1])))]
    except ParsingException:
        return 2  # libdash has said why
    json.dump(nodes, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
