"""How a run went: each node's outcome, the first cause, and the versioned JSON of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from punchlib.errors import JobFailed, PunchError, escape
from punchlib.jobs.placement import Place
from punchlib.node.protocol import Ended, ScriptResult
from punchlib.runs.failures import rank
from punchlib.runtime import state

VERSION = 1
#: Lines in an error that tells of many nodes.
_MOST_LINES = 30


@dataclass(frozen=True)
class Outcome:
    """How one node ended.

    Attributes:
        started: seconds since the run began.
        ended: seconds since the run began.
        script: its script's result; None when the node gave none.
        error: why there is no result.
        stopped: it ended because the run was given up.
        cold: a fresh Lambda worker ran it.
        log_tail: the end of its log, where there is no result.
        lost_may_pass: where there is none, the same may go well when the job runs again.
    """

    id: str
    place: Place
    started: float
    ended: float
    script: ScriptResult | None = None
    error: str = ""
    stopped: bool = False
    cold: bool = False
    log_tail: str = ""
    lost_may_pass: bool = False

    @property
    def ok(self) -> bool:
        return self.script is not None and self.script.ok

    @property
    def how(self) -> Ended:
        """How the node ended; without a result it is lost, unless we stopped it."""
        if self.stopped:
            return Ended.CANCELLED
        return self.script.ended if self.script else Ended.LOST

    @property
    def cause(self) -> str:
        return self.script.cause if self.script else self.error

    @property
    def may_pass(self) -> bool:
        """Is it worth running the job again? Not for what a script does by itself."""
        if self.script is None:
            return self.lost_may_pass
        if self.how is Ended.FAILED:
            first = self.script.first_failure
            return first is not None and first.may_pass and not self.script.note
        return self.how is Ended.LOST and self.script.may_pass

    @property
    def origin(self) -> str:
        """The node whose failure it repeats, where that is known; "" where it failed by itself."""
        first = self.script.first_failure if self.script else None
        return first.origin if first and first.kind == state.REPORTED else ""

    @property
    def stderr_tail(self) -> str:
        return self.script.stderr_tail if self.script else self.log_tail

    def to_json(self) -> dict[str, Any]:
        script = self.script
        return {
            "id": self.id,
            "place": self.place,
            "ok": self.ok,
            "stopped": self.stopped,
            "how": self.how.value,
            "cold": self.cold,
            "started_s": round(self.started, 3),
            "ended_s": round(self.ended, 3),
            "returncode": script.returncode if script else None,
            "duration_ms": script.duration_ms if script else None,
            "cause": self.cause,
            "origin": self.origin,
            "failures": [f.to_json() for f in script.failures] if script else [],
            "stderr_tail": "" if self.ok else self.stderr_tail,
        }


@dataclass
class Report:
    """How the run went."""

    job_id: str
    folder_id: str
    outcomes: list[Outcome] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    elapsed: float = 0.0
    cost: dict[str, Any] | None = None

    def to_json(self, error: PunchError | None = None) -> dict[str, Any]:
        out: dict[str, Any] = {
            "v": VERSION,
            "ok": error is None,
            "job_id": self.job_id,
            "folder_id": self.folder_id,
            "elapsed_s": round(self.elapsed, 3),
            "nodes": [o.to_json() for o in sorted(self.outcomes, key=lambda o: o.id)],
            "outputs": self.outputs,
        }
        if self.cost:
            out["cost"] = self.cost
        if error:
            out["error"] = error_json(error)
        return out


def error_json(error: PunchError) -> dict[str, Any]:
    """An error as `--json` shows it."""
    return {
        "type": type(error).__name__,
        "message": error.message,
        "next_step": error.next_step,
        "exit_code": error.exit_code,
    }


def first_cause(outcomes: list[Outcome]) -> Outcome | None:
    """The failed node on which the others' failures depend, as far as can be told.

    What kind of failure it is counts first (`failures.rank`), then the time.
    """
    failed = [o for o in outcomes if not o.ok]
    return min(failed, key=lambda o: (_rank(o), o.ended), default=None)


def _rank(outcome: Outcome) -> tuple[int, int]:
    script = outcome.script
    return rank(outcome.how, script is not None, script.first_failure if script else None)


def failure(report: Report) -> JobFailed:
    """The error that says which node failed first, why, and the end of its stderr."""
    first = first_cause(report.outcomes)
    assert first is not None
    failed = sum(not o.ok and not o.stopped for o in report.outcomes)
    others = f" ({failed - 1} more failed after it)" if failed > 1 else ""
    message = f"node {first.id} ({first.place}) failed{others}: {escape(first.cause)}"
    tail = escape(first.stderr_tail.rstrip()[-2000:])
    if tail:
        message += "\n  the end of its stderr:\n" + "\n".join(f"  | {x}" for x in tail.splitlines())
    error = JobFailed(
        message, next_step="no output was written; mend the cause and run the job again"
    )
    error.may_pass = first.may_pass
    return error


def too_late(report: Report, missing: list[str], timeout: float) -> JobFailed:
    """The error that says which nodes had not ended in time, and what each was doing."""
    message = f"the time is up: after {timeout:g} s these nodes had not ended: " + ", ".join(
        missing
    )
    scripts = [o.script for o in report.outcomes if o.id in missing and o.script]
    lines = [f"{s.id}: {f.component}: {f.told}" for s in scripts for f in s.failures]
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"… and {len(lines) - _MOST_LINES} more, in --json"]
    message += "".join(f"\n  | {escape(line, 400)}" for line in lines)
    return JobFailed(
        message, next_step="give a longer --timeout, or look at the logs of these nodes"
    )
