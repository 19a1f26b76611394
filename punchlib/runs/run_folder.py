"""What is kept of a run on the machine that ran it: its events as they come, and how it went.

    ~/.local/state/punch/runs/RUN/events.jsonl    docs/events.md
                                  live.jsonl      what nodes told in their logs while they ran
                                  run.json        the report, as `--json` has it, and more
                                  ask             written by who wants nodes to tell what they do

under $XDG_STATE_HOME where that is set. A run never fails because nothing can be kept of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from punchlib.errors import UsageError
from punchlib.names import shown
from punchlib.runs import timeline
from punchlib.runs.timeline import Moment

EVENTS, LIVE, REPORT, ASK = "events.jsonl", "live.jsonl", "run.json", "ask"
#: Runs that are kept; the oldest go first.
KEPT = 200


def state_home() -> Path:
    """Where programs keep what they know of this user's machine; it need not exist."""
    state = os.environ.get("XDG_STATE_HOME", "")
    # The specification: a path that is not absolute counts as unset.
    return Path(state) if state.startswith("/") else Path.home() / ".local/state"


def runs_root() -> Path:
    """The folder of all runs; it need not exist."""
    return state_home() / "punch/runs"


class RunFolder:
    """The folder of a run that is under way.

    Args:
        root: the folder of all runs.
        run: the run's id.

    Raises:
        OSError: nothing can be kept.
    """

    def __init__(self, root: Path, run: str) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in all_runs(root)[KEPT - 1 :]:
            shutil.rmtree(old, ignore_errors=True)
        self.path = root / run
        self.path.mkdir(mode=0o700)
        # Held for as long as we live: so a run that was killed is told from one that goes on.
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
        self._held = os.open(self.path / EVENTS, flags, 0o600)
        fcntl.flock(self._held, fcntl.LOCK_EX)

    def record(self, moments: Sequence[Moment]) -> None:
        """Adds events. On a full disk they are lost."""
        self._add(EVENTS, moments)

    def record_live(self, moment: Moment) -> None:
        """Adds what a node tells while it runs; its result will say most of it again."""
        self._add(LIVE, [moment])

    def asked(self) -> str:
        """The word of who wants to know what the nodes do; "" where nobody does."""
        try:
            return (self.path / ASK).read_text(encoding="ascii").strip()[:64]
        except (OSError, ValueError):
            return ""

    def _add(self, name: str, moments: Sequence[Moment]) -> None:
        text = "".join(json.dumps(m.to_json()) + "\n" for m in moments)
        with contextlib.suppress(OSError), (self.path / name).open("a", encoding="utf-8") as file:
            file.write(text)

    def end(self, report: Mapping[str, Any]) -> None:
        """Writes down how the run went: whole, or not at all."""
        new = self.path / f"{REPORT}.new"
        with contextlib.suppress(OSError):
            new.write_text(json.dumps(report, indent=1), encoding="utf-8")
            new.replace(self.path / REPORT)
        os.close(self._held)


def goes_on(folder: Path) -> bool:
    """Does the process live that makes this run?"""
    try:
        with (folder / EVENTS).open() as file:
            # Shared: several may look at the same time, and only its runner keeps them out.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def all_runs(root: Path | None = None) -> list[Path]:
    """The folders of all runs, latest first: their names begin with the time."""
    with contextlib.suppress(OSError):
        return sorted((p for p in (root or runs_root()).iterdir() if p.is_dir()), reverse=True)
    return []


def find(name: str = "") -> Path:
    """The folder of a run.

    Args:
        name: its id or the beginning of it, or a path; "" for the latest.

    Raises:
        UsageError: there is none, or more than one.
    """
    if "/" in name:
        if (path := Path(name)).is_dir():
            return path
        raise UsageError(f"{shown(name)} is not a run's folder")
    found = [p for p in all_runs() if p.name.startswith(name)]
    exact = [p for p in found if p.name == name]
    if len(found) == 1 or exact or (found and not name):
        return (exact or found)[0]
    if not found:
        what = f"no run {shown(name)}" if name else "no run"
        raise UsageError(f"{what} is kept in {runs_root()}", next_step="punch runs lists them")
    raise UsageError(
        f"{len(found)} runs begin with {shown(name)}", next_step="punch runs lists them"
    )


def load_report(folder: Path) -> dict[str, Any]:
    """How a run went; {} for one that still runs, or was killed.

    Raises:
        UsageError: it is no report that we can read.
    """
    path = folder / REPORT
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    if not isinstance(data, dict) or data.get("v") != 1:
        raise UsageError(
            f"{path} is of another version of punchlib", next_step="use the one that ran the job"
        )
    return data


def last_duration(job: str) -> float | None:
    """How many seconds the last run of a job took that went well; None where none is kept.

    Args:
        job: its folder, as `run.json` has it.
    """
    for folder in all_runs():
        with contextlib.suppress(UsageError):
            report = load_report(folder)
            if report.get("ok") and report.get("job") == job:
                return float(report.get("elapsed_s") or 0.0)
    return None


def ask(folder: Path, word: str) -> None:
    """Asks the nodes of a run to tell what they do; the answer is among its live events.

    Raises:
        OSError: the folder is not ours to write.
    """
    (folder / ASK).write_text(word, encoding="ascii")


def load_moments(folder: Path, name: str = EVENTS) -> list[Moment]:
    """A run's events in order; what cannot be read of them is left out."""
    return timeline.read(load_lines(folder, name))


def load_lines(folder: Path, name: str = EVENTS) -> list[str]:
    """The whole lines of a run's events, as they came; none where they cannot be read."""
    try:
        text = (folder / name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text[: text.rfind("\n") + 1].splitlines()
