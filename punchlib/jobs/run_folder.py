"""Where runs are kept, and which one is meant."""

from __future__ import annotations

import os
from pathlib import Path

from punchlib.errors import UsageError, escape

#: Runs named in an error.
_MOST = 5


def runs_root() -> Path:
    """The folder of all runs; it may not be there yet."""
    state = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(state) / "punch" / "runs"


def find(name: str = "") -> Path:
    """A run's folder.

    Args:
        name: a run, the unique beginning of one, or a path to its folder; "" is the latest.

    Raises:
        UsageError: there is none, or more than one begins like this.
    """
    root = runs_root()
    if name and (Path(name) / "events.jsonl").exists():
        return Path(name)
    if name and (Path(name) / "run.json").exists():
        return Path(name)
    try:  # their names begin with the time
        runs = sorted(p.name for p in root.iterdir() if p.is_dir())
    except OSError:
        runs = []
    if not runs:
        raise UsageError(f"{root} holds no runs", next_step="run a job first: punch run DIR")
    if not name:
        return root / runs[-1]
    found = [name] if name in runs else [run for run in runs if run.startswith(name)]
    if len(found) == 1:
        return root / found[0]
    if not found:
        latest = ", ".join(escape(run, 80) for run in runs[: -_MOST - 1 : -1])
        raise UsageError(
            f"no run {escape(name, 80)!r} in {root}", next_step=f"the latest: {latest}"
        )
    raise UsageError(
        f"{len(found)} runs begin with {escape(name, 80)!r}",
        next_step="name one: " + ", ".join(escape(run, 80) for run in found[:_MOST]),
    )
