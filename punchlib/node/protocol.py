"""The event that starts scripts on a node, and the result that comes back (docs/architecture.md).

The Lambda function and the EC2 handler take the same JSON and give the same JSON. Both ends of
both ways use these types; text from the other side is checked here and nowhere else.
"""

from __future__ import annotations

import enum
import json
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from punchlib.errors import JobFailed, UsageError
from punchlib.names import check_name, check_text, shown
from punchlib.runtime import state
from punchlib.runtime.markers import Marker

VERSION = 1
#: What follows `FOLDER` in the bucket (docs/scripts.md).
PREFIX = "sls-scripts"
#: What a user may set for the nodes of a job, less what is each node's own.
_KNOB = re.compile(r"(PUNCH|PASH)_[A-Z0-9_]{1,60}")
_NOT_THEIRS = frozenset(
    (
        *("PUNCH_NODE", "PUNCH_JOB_KEY", "PASH_JOB_ID", "PUNCH_COMMIT", "PUNCH_STATE_DIR"),
        *("PUNCH_ENGINE", "PUNCH_NODE_DOOR", "PUNCH_HANDLER_TOKEN", "PUNCH_HANDLER_TOKEN_FILE"),
        *("PASH_TOP", "PASHLIB_PATH", "PUNCH_TABLE", "PUNCH_FUNCTION"),
    )
)
_HEX = re.compile(r"([0-9a-fA-F]{2})*")
_FORM = '{"ids": ["ID", …], "folder_ids": ["FOLDER", …]}'


def script_key(folder_id: str, script_id: str) -> str:
    """The S3 key of a script."""
    return f"{PREFIX}/{folder_id}/{script_id}.sh"


def lease_key(folder_id: str) -> str:
    """The S3 key of a run's lease (punchlib.node.run_watch); no script's key ends like this."""
    return f"{PREFIX}/{folder_id}/.lease"


#: The object's metadata by which a lease asks nodes to tell what they do (punchlib.node.stock).
ASK = "ask"
ASK_HEADER = f"x-amz-meta-{ASK}"


@dataclass(frozen=True)
class Task:
    """One script to run: `bash SCRIPT FOLDER ARGS…`."""

    id: str
    folder_id: str
    args: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """What a node is asked to do.

    Attributes:
        tasks: the scripts, run in this order.
        job_id: scopes the rendezvous keys of one run; "" outside `punch run`.
        job_key: hexadecimal secret of one run; never shown.
        commit: "runner" leaves finished uploads pending for the job runner; "handler" lets the
            node complete them itself.
        timeout: seconds after which nobody waits for the result any more; 0.0: no limit.
        env: knobs for its scripts: PUNCH_… and PASH_… variables that users set.
        lease: seconds without a renewal of the run's lease after which its runner is dead; 0.0:
            it keeps none.
    """

    tasks: tuple[Task, ...]
    job_id: str = ""
    job_key: str = field(default="", repr=False)
    commit: str = "handler"
    timeout: float = 0.0
    lease: float = 0.0
    env: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "ids": [t.id for t in self.tasks],
            "folder_ids": [t.folder_id for t in self.tasks],
            "commit": self.commit,
        }
        if any(t.args for t in self.tasks):
            out["args"] = [list(t.args) for t in self.tasks]
        if self.job_id:
            out["job_id"] = self.job_id
        if self.job_key:
            out["job_key"] = self.job_key
        if self.timeout:
            out["timeout"] = self.timeout
        if self.lease:
            out["lease"] = self.lease
        if self.env:
            out["env"] = dict(self.env)
        return out

    @classmethod
    def from_json(cls, data: object) -> Event:
        """Checks an event.

        Raises:
            UsageError: it is not one; the message says what is wrong with it.
        """
        if not isinstance(data, Mapping):
            raise UsageError("the event is not a JSON object", next_step=f"send {_FORM}")
        ids: Any = data.get("ids")
        folders: Any = data.get("folder_ids")
        if "id" in data and ids is None:
            ids, folders = [data["id"]], [data.get("folder_id")]
        if not _strings(ids) or not _strings(folders) or len(ids) != len(folders) or not ids:
            raise UsageError(
                "the event needs `ids` and `folder_ids`: lists of names of the same length",
                next_step=f"send {_FORM}",
            )
        args = data.get("args") or [[] for _ in ids]
        if not isinstance(args, list) or len(args) != len(ids) or not all(map(_strings, args)):
            raise UsageError("the event's `args` must be one list of strings for each script")
        job_id, job_key = data.get("job_id") or "", data.get("job_key") or ""
        if not isinstance(job_id, str) or not isinstance(job_key, str):
            raise UsageError("the event's `job_id` and `job_key` must be strings")
        if not _HEX.fullmatch(job_key):
            raise UsageError("the event's `job_key` is not hexadecimal")  # a secret: not shown
        if job_id:
            check_name(job_id, "the event's `job_id`")
        tasks = tuple(_task(i, f, a) for i, f, a in zip(ids, folders, args, strict=True))
        return cls(
            tasks,
            job_id,
            job_key,
            _commit(data),
            _seconds(data, "timeout"),
            _seconds(data, "lease"),
            check_knobs(data.get("env") or {}, "the event's `env`"),
        )


def _task(id_: str, folder_id: str, args: list[str]) -> Task:
    check_name(id_, "the script id")
    check_name(folder_id, "the folder id")
    for argument in args:
        check_text(argument, f"an argument of {id_}")
    return Task(id_, folder_id, tuple(args))


def check_knobs(knobs: object, where: str) -> dict[str, str]:
    """Knobs that a job may set for its nodes.

    Args:
        knobs: name -> value.
        where: names them in messages.

    Raises:
        UsageError: one is no knob, or belongs to the node.
    """
    if not isinstance(knobs, Mapping):
        raise UsageError(f"{where} is not a table of names and values")
    found = {}
    for name, value in knobs.items():
        if not isinstance(name, str) or not _KNOB.fullmatch(name) or name in _NOT_THEIRS:
            raise UsageError(
                f"{where}: {shown(str(name))} is no knob of a job's nodes",
                next_step="PUNCH_… and PASH_… variables of docs/quickstart.md can be set",
            )
        if not isinstance(value, str):
            raise UsageError(f"{where}: {name} is not text")
        found[name] = check_text(value, f"{where}: {name}")
    return found


def _commit(data: Mapping[str, Any]) -> str:
    commit = data.get("commit") or "handler"
    if commit not in ("runner", "handler"):
        raise UsageError(
            f"the event's `commit` is {shown(str(commit))}", next_step="runner or handler"
        )
    return str(commit)


def _seconds(data: Mapping[str, Any], name: str) -> float:
    seconds = data.get(name) or 0.0
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        raise UsageError(f"the event's `{name}` is not a number of seconds")
    return float(seconds)


class Ended(enum.StrEnum):
    """How a script ended."""

    OK = "ok"
    FAILED = "failed"
    #: The run was given up, or its handler was stopped.
    CANCELLED = "cancelled"
    #: The node had no more time.
    TIMEOUT = "timeout"
    #: It never ran: its text could not be had, or the machine refused.
    LOST = "lost"


@dataclass(frozen=True)
class ScriptResult:
    """How one script ended.

    Attributes:
        returncode: bash's exit status; 128 + N after signal N.
        duration_ms: from the fetch of the script to its end.
        stderr_tail: the last few KiB of what it wrote to stderr.
        failures: the markers that our components left, oldest first.
        pending: uploads that wait to be completed by the job runner.
        note: what the handler itself has to say, for people.
        may_pass: of one that was lost: it may go well when the job runs again.
        ended: how; left out it is `ok` or `failed`, as the other facts say.
    """

    id: str
    folder_id: str
    returncode: int
    duration_ms: int
    stderr_tail: str = ""
    failures: tuple[Marker, ...] = ()
    pending: tuple[dict[str, Any], ...] = ()
    note: str = ""
    may_pass: bool = False
    ended: Ended = None  # type: ignore[assignment]  # set right below

    def __post_init__(self) -> None:
        if self.ended is None:
            bad = self.returncode or self.failures or self.note
            object.__setattr__(self, "ended", Ended.FAILED if bad else Ended.OK)

    @property
    def ok(self) -> bool:
        return self.ended is Ended.OK

    @property
    def cause(self) -> str:
        """One line: why it failed; "" when it did not."""
        if self.note:
            return self.note
        if first := self.first_failure:
            return first.summary
        if self.returncode > 128:
            return f"its script ended with status {self.returncode} ({_signal(self.returncode)})"
        if self.returncode:
            return f"its script exited {self.returncode}"
        return "a component of it was stopped" if self.failures else ""

    @property
    def first_failure(self) -> Marker | None:
        """The oldest marker of a component that failed and was not told to stop."""
        return next((f for f in self.failures if f.kind != state.STOPPED), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "folder_id": self.folder_id,
            "returncode": self.returncode,
            "ended": self.ended.value,
            "duration_ms": self.duration_ms,
            "stderr_tail": self.stderr_tail,
            "failures": [f.to_json() for f in self.failures],
            "pending": list(self.pending),
            "note": self.note,
            "may_pass": self.may_pass,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ScriptResult:
        """Reads one; a node of an older release says less (`kind`, `origin`, `ended`).

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        return cls(
            id=str(data["id"]),
            folder_id=str(data["folder_id"]),
            returncode=int(data["returncode"]),
            duration_ms=int(data["duration_ms"]),
            stderr_tail=str(data.get("stderr_tail", "")),
            failures=tuple(Marker.from_json(f) for f in data.get("failures", ())),
            pending=tuple(dict(p) for p in data.get("pending", ())),
            note=str(data.get("note", "")),
            may_pass=data.get("may_pass") is True,
            ended=Ended(data["ended"]) if "ended" in data else None,  # type: ignore[arg-type]
        )


@dataclass(frozen=True)
class Clock:
    """When the node took the event and gave the result, by its own clock (seconds since 1970).

    With when its caller sent the one and got the other it bounds how far the two clocks differ.
    """

    received: float
    answered: float


@dataclass(frozen=True)
class Result:
    """How an event went.

    Attributes:
        scripts: how each of its scripts ended.
        cold: this was the first event of a fresh worker.
        events: what happened, oldest first (docs/events.md).
        clock: None from a node of an older release.
    """

    scripts: tuple[ScriptResult, ...]
    cold: bool = False
    events: tuple[dict[str, Any], ...] = ()
    clock: Clock | None = None

    @property
    def ok(self) -> bool:
        return all(s.ok for s in self.scripts)

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "v": VERSION,
            "ok": self.ok,
            "cold": self.cold,
            "scripts": [s.to_json() for s in self.scripts],
        }
        if self.clock:
            out["events"] = list(self.events)
            out["clock"] = [self.clock.received, self.clock.answered]
        return out

    @classmethod
    def from_json(cls, data: object) -> Result:
        """Reads a result.

        Raises:
            JobFailed: it is not one that we know.
        """
        try:
            assert isinstance(data, Mapping)
            if data["v"] != VERSION:
                raise JobFailed(
                    f"the node speaks version {data['v']!r} of the result, we speak {VERSION}",
                    next_step="deploy the same punchlib on every node",
                )
            scripts = tuple(ScriptResult.from_json(s) for s in data["scripts"])
            events = tuple(dict(e) for e in data.get("events") or ())
            clock = Clock(*map(float, data["clock"])) if data.get("clock") else None
        except (AssertionError, KeyError, TypeError, ValueError, OverflowError) as exc:
            raise JobFailed("the node's answer is not a result that we know") from exc
        return cls(scripts, bool(data.get("cold")), events, clock)


class ScriptsFailed(Exception):
    """Fails the Lambda invocation and still brings the whole result.

    A Lambda error carries only a type and a message. So the message is one line for people, and
    after it, on the second line, the result as JSON: `parse_error` takes it out again.
    """

    def __init__(self, result: Result) -> None:
        failed = next((s for s in result.scripts if not s.ok), None)
        short = f"script {failed.id} failed: {failed.cause}" if failed else "no script ran"
        super().__init__(f"{short}\n{json.dumps(result.to_json())}")


def parse_error(payload: Mapping[str, Any]) -> Result | None:
    """The result in the payload of a failed invocation; None when the worker itself failed."""
    if payload.get("errorType") != ScriptsFailed.__name__:
        return None
    _, _, text = str(payload.get("errorMessage", "")).partition("\n")
    try:
        return Result.from_json(json.loads(text))
    except (ValueError, RecursionError) as exc:
        raise JobFailed("the failed invocation's result cannot be read") from exc


def _signal(returncode: int) -> str:
    try:
        return signal.Signals(returncode - 128).name
    except ValueError:
        return f"signal {returncode - 128}"


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)
