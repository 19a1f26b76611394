"""The Lambda function: runs the scripts of an event, one after the other (docs/architecture.md).

    handler = punchlib.node.lambda_handler.handler

A failed script fails the invocation with `ScriptsFailed`, whose message carries the result.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.node.clean_slate import CleanSlate
from punchlib.node.handling import ensure_engine, run_event, workdir
from punchlib.node.protocol import Event, ScriptsFailed
from punchlib.node.script_runner import ScriptRunner

#: Seconds kept back from Lambda's time-out, to stop the script and to answer.
RESERVE = 5.0


class _Worker:
    """What a worker keeps from one invocation to the next: clients, and nothing of a job."""

    def __init__(self) -> None:
        ensure_engine()
        config = Config.from_env()
        self._runner = ScriptRunner(client("s3", config), config, workdir())
        self._slate = CleanSlate()
        self._cold = True

    def handle(self, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        cold, self._cold = self._cold, False
        left = context.get_remaining_time_in_millis() / 1000
        deadline = time.monotonic() + left - RESERVE
        with self._slate:
            result = run_event(self._runner, Event.from_json(event), cold=cold, deadline=deadline)
        if not result.ok:
            raise ScriptsFailed(result)
        return result.to_json()


# Made at init: the first invocation finds its clients ready.
_worker = _Worker()


def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """The entry point that awslambdaric calls."""
    return _worker.handle(event, context)
