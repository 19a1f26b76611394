"""The Lambda function: runs the scripts of an event, one after the other (docs/architecture.md).

    handler = punchlib.node.lambda_handler.handler

A failed script fails the invocation with `ScriptsFailed`, whose message carries the result. An
asynchronous event that was delivered before is not run again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from punchlib.aws import quick
from punchlib.config import Config
from punchlib.node import claim
from punchlib.node.clean_slate import CleanSlate
from punchlib.node.handling import answer_probe, ensure_engine, log, run_event, workdir
from punchlib.node.probe_event import Probe
from punchlib.node.protocol import Event, Result, ScriptsFailed
from punchlib.node.script_runner import ScriptRunner

#: Seconds kept back from Lambda's time-out, to stop the script and to answer.
RESERVE = 5.0


class _Worker:
    """What a worker keeps from one invocation to the next: clients, and nothing of a job."""

    def __init__(self) -> None:
        ensure_engine()
        self._config = Config.from_env()
        self._runner = ScriptRunner(quick.client("s3", self._config), self._config, workdir())
        self._slate = CleanSlate()
        self._cold = True

    def handle(self, data: Mapping[str, Any], context: Any) -> dict[str, Any]:
        cold, self._cold = self._cold, False
        if probe := Probe.from_json(data):
            return answer_probe(probe, Config.from_env(), cold=cold)
        event = Event.from_json(data)
        if not self._is_first(event, context.aws_request_id):
            log(f"[JOB:{event.job_id}] [lambda-function.py] this event was delivered before")
            return Result((), cold).to_json()
        left = context.get_remaining_time_in_millis() / 1000
        deadline = time.monotonic() + left - RESERVE
        with self._slate:
            result = run_event(self._runner, event, cold=cold, deadline=deadline)
        if not result.ok:
            raise ScriptsFailed(result)
        return result.to_json()

    def _is_first(self, event: Event, request_id: str) -> bool:
        # A runner waits for its event's answer, so that one came by a call and only once.
        if event.commit == "runner" or not request_id:
            return True
        store = quick.client("dynamodb", self._config, connect_timeout=2, read_timeout=3)
        return claim.is_ours(store, self._config.table, request_id)


# Made at init: the first invocation finds its clients ready.
_worker = _Worker()


def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """The entry point that awslambdaric calls."""
    return _worker.handle(event, context)
