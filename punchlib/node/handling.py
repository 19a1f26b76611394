"""What the Lambda handler and the EC2 handler have in common."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Any

from punchlib.config import Config
from punchlib.errors import escape
from punchlib.node.event_log import EventLog
from punchlib.node.probe_event import Probe
from punchlib.node.protocol import Clock, Event, Result
from punchlib.node.script_runner import ScriptRunner
from punchlib.runtime import engine, engine_client


def workdir() -> Path:
    """The folder that holds runtime/ and aws/: $PASH_TOP, else /var/task."""
    given = os.environ.get("PASH_TOP") or os.environ.get("LAMBDA_TASK_ROOT") or "/var/task"
    return Path(given).absolute()


def ensure_engine() -> None:
    """Starts the node engine for this process's lifetime, unless the machine has one already.

    Scripts find it by PUNCH_ENGINE; until it has imported everything, they wait in its queue.
    """
    if engine_client.ENGINE not in os.environ:
        lifetime = contextlib.ExitStack()
        atexit.register(lifetime.close)
        os.environ[engine_client.ENGINE] = lifetime.enter_context(engine.spawn())


def run_event(
    runner: ScriptRunner,
    event: Event,
    *,
    cold: bool = False,
    deadline: float | None = None,
    caller: int | None = None,
) -> Result:
    """Runs the scripts of an event, one after the other.

    A failure does not keep the next one from running: its peers on other nodes wait for it.

    Args:
        runner: runs each.
        event: names them, and may limit their time.
        cold: this worker is fresh.
        deadline: `time.monotonic()` at which they must have ended; None: never.
        caller: a connection; when its other end closes it, nobody wants the result any more.
    """
    if event.timeout:
        limit = time.monotonic() + event.timeout
        deadline = limit if deadline is None else min(deadline, limit)
    received = time.time()
    events = EventLog(event.job_id)
    for task in event.tasks:
        events.tell(task.id, "node.invoked", {"faas.coldstart": cold, **_ourselves()})
    prefix = f"[JOB:{event.job_id}] [lambda-function.py]"
    results = []
    for task in event.tasks:
        log(f"{prefix} Executing script ID {task.id}")
        result = runner.run(task, event, events, deadline, caller)
        events.tell(task.id, "node.ended", {"punch.ended": result.ended.value})
        how = "" if result.ok else f" ({result.cause})"
        log(
            f"{prefix} Script ID {task.id} ended with return code {result.returncode}"
            f" after {result.duration_ms} ms{how}"
        )
        results.append(result)
    clock = Clock(received, time.time())
    return Result(tuple(results), cold, tuple(events.kept), clock)


def answer_probe(probe: Probe, config: Config, *, cold: bool = False) -> dict[str, Any]:
    """What this node has to say to a probe; its code is imported when one comes, and not before."""
    from punchlib.node import probe as probes

    log(f"[lambda-function.py] probe: {probe.kind}")
    return probes.answer(probe, config, cold=cold)


def _ourselves() -> dict[str, str | int]:
    """Who we are, in OpenTelemetry's terms."""
    out: dict[str, str | int] = {"host.name": os.uname().nodename}
    if instance := os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME"):
        out["faas.instance"] = instance
    memory = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    if memory.isdecimal():
        out["faas.max_memory"] = int(memory) << 20
    return out


def log(line: str) -> None:
    """One line of the node's log, whatever is in it."""
    sys.stderr.write(escape(line).replace("\n", "\\n") + "\n")
    sys.stderr.flush()
