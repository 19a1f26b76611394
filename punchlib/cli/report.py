"""`punch report`: a run as one HTML page, and as a trace for Perfetto."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from punchlib.cli import output
from punchlib.errors import PunchError, UsageError
from punchlib.jobs import report as run_report
from punchlib.runs import report_page, run_folder, story, timeline
from punchlib.runs.critical_path import path_of
from punchlib.runs.timeline import Moment
from punchlib.runs.trace import trace as trace_of

_STDOUT = "-"


def report(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run's id, the beginning of it, or its folder; else the latest.",
            show_default=False,
        ),
    ] = "",
    out: Annotated[
        str,
        typer.Option("-o", "--output", metavar="FILE", help="Where to (RUN.html); - is stdout."),
    ] = "",
    trace: Annotated[
        str,
        typer.Option(metavar="FILE", help="Also write a trace, for Perfetto; - is stdout."),
    ] = "",
) -> None:
    """Shows where a run's time went, what flowed where, and what failed: one page, for a browser.

    The page holds everything that it shows: it can be kept, printed and sent.
    """
    if out == trace == _STDOUT:
        raise UsageError("page and trace both want stdout", next_step="give one of them a file")
    folder = run_folder.find(run)
    name = folder.resolve().name
    moments, about, notes = _read(folder)
    for note in notes:
        output.warning(note)
    told = story.tell(moments, about)
    if trace:
        _write(trace, json.dumps(trace_of(told, path_of(told), name)) + "\n")
    if trace != _STDOUT or out:
        target = out or f"{name}.html"
        _write(target, report_page.render(name, told, about, notes))


def _write(target: str, text: str) -> None:
    """Writes a file, or stdout.

    Raises:
        PunchError: it cannot be written.
    """
    data = text.encode("utf-8", "backslashreplace")
    try:
        if target == _STDOUT:
            output.stdout(data)
            return
        Path(target).write_bytes(data)
    except OSError as error:
        raise PunchError(
            f"{'stdout' if target == _STDOUT else target} cannot be written: {error.strerror}",
            next_step="name another file with -o, or - for stdout",
        ) from error
    output.console.print(f"wrote {output.safe(target)}")


def _read(folder: Path) -> tuple[list[Moment], dict[str, Any], list[str]]:
    """What a run's folder holds: its events, its run.json, and what is wrong with them.

    Raises:
        PunchError: nothing in it can be read.
    """
    notes: list[str] = []
    about = _about(folder / run_folder.REPORT, notes)
    try:
        lines = (folder / run_folder.EVENTS).read_bytes().decode("utf-8", "replace").splitlines()
    except OSError as error:
        lines = []
        notes.append(f"events.jsonl cannot be read ({error.strerror}): the page has no timeline.")
    moments = timeline.read(lines)
    if not moments and not about:
        raise PunchError(
            f"{folder} holds no run that can be read: " + " ".join(notes or ["it is empty"]),
            next_step="name another run; punch run writes one each time",
        )
    written = [line for line in lines if line.strip()]
    if unread := len(written) - len(moments):
        notes.append(
            f"{unread} of {len(written)} lines of events.jsonl cannot be read and are left out."
        )
    newest = max(_versions(written), default=0)
    if newest > timeline.VERSION:
        notes.append(_newer("events.jsonl", newest, timeline.VERSION))
    return moments, about, notes


def _newer(file: str, version: int, known: int) -> str:
    return (
        f"{file} is of version {version}, and this punch knows {known}: what it does not know is "
        "left out. The punch of that run shows all."
    )


def _about(file: Path, notes: list[str]) -> dict[str, Any]:
    try:
        about = json.loads(file.read_bytes())
        if not isinstance(about, dict):
            raise ValueError("no object")
    except OSError as error:
        notes.append(
            f"run.json cannot be read ({error.strerror}): the run has not ended, or was killed."
        )
        return {}
    except (ValueError, RecursionError):
        notes.append("run.json is not whole: how the nodes ended is not known.")
        return {}
    version = about.get("v")
    if isinstance(version, int) and version > run_report.VERSION:
        notes.append(_newer("run.json", version, run_report.VERSION))
    return about


def _versions(lines: list[str]) -> Iterator[int]:
    for line in lines:
        try:
            version = json.loads(line)["v"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(version, int):
            yield version
