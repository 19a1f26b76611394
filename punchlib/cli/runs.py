"""`punch runs`, `punch logs`, `punch clean`: the runs that this machine has made."""

from __future__ import annotations

import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from punchlib.aws.clients import client
from punchlib.cli import output
from punchlib.cli.options import Json
from punchlib.config import Config
from punchlib.errors import StorageError, UsageError, escape
from punchlib.names import shown
from punchlib.runs import cost, run_folder, timeline
from punchlib.runs.log_sources import CloudWatchLogs
from punchlib.runs.timeline import Moment

RUN = Annotated[
    str, typer.Argument(help="A run's id, the beginning of it, or its folder; else the latest.")
]


def runs(
    json: Json = False,
    number: Annotated[int, typer.Option("-n", help="So many of the latest.", min=1)] = 20,
) -> None:
    """Lists the latest runs: when, how long, which job, how it ended, what it cost."""
    found = [_summary(folder) for folder in run_folder.all_runs()[:number]]
    if json:
        output.data({"v": 1, "runs": found})
        return
    table = Table(box=None, pad_edge=False)
    for name, side in (
        *(("RUN", "left"), ("TIME", "left"), ("DURATION", "right"), ("JOB", "left")),
        *(("STATUS", "left"), ("NODES", "right"), ("COST", "right")),
    ):
        table.add_column(name, justify=side, overflow="fold")  # type: ignore[arg-type]
    for each in found:
        table.add_row(
            each["run"],
            f"{datetime.fromtimestamp(each['began']):%Y-%m-%d %H:%M:%S}" if each["began"] else "?",
            "?" if each["elapsed_s"] is None else f"{each['elapsed_s']:.1f} s",
            escape(each["job"]),
            each["status"],
            str(each["nodes"]),
            "?" if each["cost"] is None else cost.money(each["cost"]),
        )
    output.table(table)


def logs(
    run: RUN = "",
    node: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Of this node only. Repeatable.")
    ] = None,
    events: Annotated[bool, typer.Option("--events", help="Every event, not only text.")] = False,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Until the run ends.")] = False,
    aws: Annotated[
        bool, typer.Option("--aws", help="All that its workers wrote, from CloudWatch.")
    ] = False,
) -> None:
    """Shows what the nodes of a run wrote and what the runner saw, by time.

    What is kept here of each node is the last 64 KiB of what its script wrote; CloudWatch has all
    of it, and of runs of other machines too where their whole id is given.
    """
    if aws:
        _from_cloudwatch(run)
        return
    folder = run_folder.find(run)
    known = {m.node for m in run_folder.load_moments(folder)}
    for name in node or ():
        if name not in known and not follow:
            raise UsageError(
                f"the run {folder.name} has no node {name!r}",
                next_step=f"it has {', '.join(sorted(known - {''})) or 'none'}",
            )
    seen = 0
    while True:
        ended = not run_folder.goes_on(folder)
        # A node's come when it has ended, though they are of earlier.
        new = run_folder.load_lines(folder)[seen:]
        seen += len(new)
        for moment in timeline.read(new):
            if (not node or moment.node in node) and (line := _line(moment, everything=events)):
                sys.stdout.write(line + "\n")
        sys.stdout.flush()
        if ended or not follow:
            return
        time.sleep(0.5)


def _from_cloudwatch(run: str) -> None:
    """All lines of a run's workers, by time.

    Raises:
        UsageError: the run is not known, and it is no whole id.
        StorageError: CloudWatch has nothing of it, or refuses.
    """
    try:
        folder = run_folder.find(run)
        name, report = folder.name, run_folder.load_report(folder)
    except UsageError:
        name, report = run, {}
    try:
        began = datetime.strptime(name.split("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise UsageError(
            f"{shown(name)} is no run's id", next_step="punch runs lists those of this machine"
        ) from None
    start = began.timestamp() - 1
    ended = start + float(report["elapsed_s"]) + 60 if "elapsed_s" in report else None
    config = Config.from_env()
    group = f"/aws/lambda/{config.function}"
    logs = CloudWatchLogs(lambda: client("logs", config), group, name, start, ended)
    lines = logs.read()
    if not [line for line in lines if line.at is not None]:
        why = lines[0].text if lines else f"{group} has no line of the run {name}"
        raise StorageError(
            why, next_step="check PUNCH_FUNCTION, AWS_REGION and logs:FilterLogEvents"
        )
    for line in sorted(lines, key=lambda each: each.at or 0.0):
        sys.stdout.write(f"{(line.at or start) - start:8.3f} s  {escape(line.text)}\n")
    sys.stdout.flush()


def clean(
    older: Annotated[
        float, typer.Option(metavar="DAYS", help="Only what is older than DAYS.", min=0.0)
    ] = 0.0,
) -> None:
    """Removes what is kept of runs that have ended."""
    before = time.time() - older * 86400
    removed = 0
    for folder in run_folder.all_runs():
        summary = _summary(folder)
        if summary["status"] == "running" or (summary["began"] or 0.0) > before:
            continue
        shutil.rmtree(folder)
        removed += 1
    output.console.print(f"removed {removed} runs from {run_folder.runs_root()}")


def _summary(folder: Path) -> dict[str, Any]:
    """A run in a line; what is not known of it is None."""
    out: dict[str, Any] = {"run": folder.name, "began": None, "elapsed_s": None, "job": "?"}
    out |= {"nodes": 0, "cost": None}
    try:
        report = run_folder.load_report(folder)
    except UsageError:
        return out | {"status": "?"}
    if not report:
        how = "running" if run_folder.goes_on(folder) else "killed"
        return out | {"status": how} | _of_one_that_runs(run_folder.load_moments(folder))
    paid = report.get("cost") or {}
    return out | {
        "began": report.get("began"),
        "elapsed_s": report.get("elapsed_s"),
        "job": Path(str(report.get("job", "?"))).name,
        "status": "ok" if report.get("ok") else "failed",
        "nodes": len(report.get("nodes", ())),
        "cost": paid.get("total"),
    }


def _of_one_that_runs(moments: list[Moment]) -> dict[str, Any]:
    job = next((m.text("punch.job") for m in moments if m.event == "run.started"), "?")
    nodes = {m.node for m in moments if m.event == "run.node_started"}
    return {"job": Path(job).name, "nodes": len(nodes)}


def _line(moment: Moment, *, everything: bool) -> str:
    """A moment for people; "" where there is nothing to say of it."""
    if moment.event == "log":
        text = moment.text("log.text")
    elif everything:
        facts = " ".join(f"{name}={value}" for name, value in moment.attributes.items())
        text = f"{moment.event} {facts}"
    elif moment.event.startswith("run.") and moment.text("punch.text"):
        text = moment.text("punch.text")
    elif moment.event == "run.ended" and moment.text("punch.error"):
        text = f"the run failed: {moment.text('punch.error')}"
    else:
        return ""
    name = f"{escape(moment.node)}: " if moment.node else ""
    return f"{moment.at:8.3f} s  {name}{escape(text)}"
