"""What can be known to be wrong with a job before it starts (docs/running-jobs.md).

A real job that lacks a script hangs for ever: a FIFO without a reader, a key without a sender.
Such a job is refused with the name of the culprit. Scripts are shell, and not everything about
them can be known; what is not understood is a warning and never a refusal.
"""

from __future__ import annotations

import shutil
from collections import defaultdict

from punchlib.errors import UsageError
from punchlib.jobs.events import EventSink
from punchlib.jobs.manifest import Job
from punchlib.jobs.streams import Reading, read

#: Commands of a stage that the shell or our layout provides.
_PROVIDED = frozenset(
    ("source", ".", ":", "exec", "eval", "command", "builtin", "cd", "wait", "let", "trap", "set")
)


def check(job: Job, events: EventSink, *, local: bool) -> None:
    """Checks all scripts.

    Args:
        job: the scripts.
        events: is told the warnings.
        local: the scripts run on this machine, so their tools must be here.

    Raises:
        UsageError: the job cannot end well; names each culprit.
    """
    readings = {node.id: read(node.text) for node in job.nodes}
    for id_, reading in readings.items():
        for doubt in reading.doubts:
            events.tell("warning", f"{id_}.sh was not checked wholly: {doubt}")
    problems = [*_fifos(readings), *_keys(readings), *_collations(readings)]
    if local:
        problems += _tools(readings)
    if problems:
        raise UsageError(
            "this job cannot end well:\n" + "\n".join(f"  - {p}" for p in problems),
            next_step="mend the scripts, or add the one that is missing",
        )


def _fifos(readings: dict[str, Reading]) -> list[str]:
    problems = []
    for id_, reading in readings.items():
        for fifo in sorted(reading.fifos):
            uses = reading.uses.get(fifo, set())
            if not uses or "unknown" in uses or reading.doubts:
                continue
            for needed, who in (("read", "reader"), ("written", "writer")):
                if needed not in uses:
                    problems.append(f"{id_}.sh: the FIFO {fifo} has no {who}")
    return problems


def _keys(readings: dict[str, Reading]) -> list[str]:
    ends: dict[str, dict[str, list[str]]] = defaultdict(lambda: {"send": [], "recv": []})
    for id_, reading in readings.items():
        for stream in reading.streams:
            ends[stream.key][stream.verb].append(id_)
    # A key that depends on a variable may be the missing end of any of them.
    complete = not any(reading.doubts for reading in readings.values())
    problems = []
    for key, sides in ends.items():
        for verb, other in (("send", "recv"), ("recv", "send")):
            scripts = sides[verb]
            if len(scripts) > 1:
                where = ", ".join(f"{s}.sh" for s in scripts)
                problems.append(f"the key {key} has {len(scripts)} {verb} ends: {where}")
            elif not scripts and complete:
                where = ", ".join(f"{s}.sh" for s in sides[other])
                problems.append(f"the key {key} of {where} has no {verb}: is a script missing?")
    return problems


def _collations(readings: dict[str, Reading]) -> list[str]:
    """Scripts that sort in one order and merge in another give wrong results without an error."""
    by_order: dict[str, list[str]] = defaultdict(list)
    for id_, reading in readings.items():
        if len(reading.collations) == 1 and (order := next(iter(reading.collations))):
            by_order[order].append(id_)
    if len(by_order) < 2:
        return []
    told = "; ".join(f"{o}: {', '.join(sorted(ids)[:3])}" for o, ids in sorted(by_order.items()))
    return [f"the scripts collate differently, so merged data would be wrong ({told})"]


def _tools(readings: dict[str, Reading]) -> list[str]:
    missing: dict[str, list[str]] = defaultdict(list)
    for id_, reading in readings.items():
        for tool in reading.tools - reading.functions - _PROVIDED:
            if "/" not in tool and not tool.startswith("python3") and not shutil.which(tool):
                missing[tool].append(id_)
    return [
        f"{tool}, a stage of {', '.join(ids)}, is not on this machine"
        for tool, ids in sorted(missing.items())
    ]
