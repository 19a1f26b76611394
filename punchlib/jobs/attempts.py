"""A job, run again from the start when it failed for a reason that may pass.

A run shares nothing with the one before it: its keys, its scripts and its uploads are its own, so
what is left of the first cannot meet the second. What a script does by itself is not repeated.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from punchlib.errors import PunchError
from punchlib.jobs.events import EventSink
from punchlib.jobs.report import Report
from punchlib.jobs.runner import JobRunner
from punchlib.runs import cost
from punchlib.runs.critical_path import critical_path, sentence
from punchlib.runs.run_folder import RunFolder

#: Seconds before the first repetition; each later one waits twice as long.
FIRST_PAUSE = 1.0


@dataclass(frozen=True)
class Keeping:
    """What is kept of each run.

    Attributes:
        root: the folder of all runs.
        facts: of the job, beside the report.
        prices: for what it costs (punchlib.runs.cost).
    """

    root: Path
    facts: Mapping[str, Any]
    prices: Mapping[str, Any]


#: What is to be done while a run lasts; its folder is None where nothing can be kept.
Watching = Callable[[JobRunner, EventSink, RunFolder | None], AbstractContextManager[object]]


class Attempts:
    """Runs a job until it has gone well, or fails for good.

    Args:
        make: makes a runner that tells its events to the sink.
        events: those of the first run.
        retries: how many times more the job may run.
        keeping: what is kept of each run.
        watching: what is to be done while one runs.

    Attributes:
        events: those of the latest run.
        runner: of the latest run; None before the first.
    """

    def __init__(
        self,
        make: Callable[[EventSink], JobRunner],
        events: EventSink,
        retries: int,
        keeping: Keeping,
        watching: Watching = lambda *_: contextlib.nullcontext(),
    ) -> None:
        self.events = events
        self.runner: JobRunner | None = None
        self._make = make
        self._retries = retries
        self._keeping = keeping
        self._watching = watching

    def run(self) -> Report:
        """Runs the job.

        Raises:
            PunchError: the last run failed; its message is that of this run.
        """
        pause = FIRST_PAUSE
        for left in range(self._retries, -1, -1):
            try:
                return self._run_once()
            except PunchError as error:
                if not (error.may_pass and left):
                    raise
                wait = pause * random.uniform(0.5, 1.5)
                self.events.tell("warning", error.message.splitlines()[0])
                self.events.tell("warning", f"that may pass: runs again in {wait:.1f} s")
            time.sleep(wait)
            pause *= 2
            self.events = self.events.afresh()
        raise AssertionError("the last run returns or raises")

    def _run_once(self) -> Report:
        self.runner = runner = self._make(self.events)
        kept = _kept(runner.report, self.events, self._keeping)
        with kept as folder, self._watching(runner, self.events, folder):
            self.events.note("run.started", **self._keeping.facts)
            try:
                report = runner.run()
            except PunchError as error:
                self.events.note("run.ended", ok=False, error=error.message)
                raise
            finally:
                spent = cost.estimate(self.events.moments, self._keeping.prices)
                runner.report.cost = spent.to_json()
            self.events.tell("step", "the job went well")
            elapsed = self.events.note("run.ended", ok=True)
            path = critical_path(self.events.moments)
            if where := sentence(path, elapsed):
                self.events.tell("step", where)
            self.events.tell("step", spent.sentence())
            return report


@contextlib.contextmanager
def _kept(report: Report, events: EventSink, keeping: Keeping) -> Iterator[RunFolder | None]:
    """Keeps what happens in the run's folder, and how it went."""
    try:
        folder = RunFolder(keeping.root, report.job_id)
    except OSError as error:
        events.tell("warning", f"nothing is kept of this run: {error}")
        yield None
        return
    events.record(folder.record)
    problem: PunchError | None = None
    try:
        yield folder
    except PunchError as error:
        problem = error
        raise
    except BaseException as stop:
        problem = PunchError(f"the run was stopped: {type(stop).__name__}")
        raise
    finally:
        folder.end({**report.to_json(problem), "began": events.began, **keeping.facts})
