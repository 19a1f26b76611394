"""How the command line speaks: data to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape as markup_escape
from rich.table import Table

from punchlib.cli.live_view import LiveView
from punchlib.errors import PunchError, escape
from punchlib.jobs.events import JobEvent
from punchlib.runs.timeline import Moment

#: Rich honours NO_COLOR by itself.
console = Console(stderr=True, highlight=False, soft_wrap=True)

_COLOUR = {"warning": "yellow", "node-failed": "red", "node-ended": "green"}
#: Characters of one message.
_MOST_TEXT = 20_000


def error(problem: PunchError) -> None:
    """One message and the next step."""
    console.print(f"[red]error:[/red] {safe(problem.message)}")
    if problem.next_step:
        console.print(f"  next: {safe(problem.next_step)}")


def warning(text: str) -> None:
    """What should be known, and stops nothing."""
    console.print(f"[yellow]warning:[/yellow] {safe(text)}")


def safe(text: str) -> str:
    """What may hold text from anywhere, for this console."""
    return markup_escape(escape(text, _MOST_TEXT))


def stdout(content: bytes) -> None:
    """All of it on stdout: under PYTHONUNBUFFERED one write() into a pipe may take a part only.

    Raises:
        OSError: nobody reads it, or the disk is full.
    """
    sys.stdout.flush()
    left = memoryview(content)
    while left:
        left = left[sys.stdout.buffer.write(left) :]
    sys.stdout.flush()


def data(content: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    stdout(json.dumps(content, indent=2).encode() + b"\n")


def json_lines(moments: Sequence[Moment]) -> None:
    """Each event as a line of JSON on stdout."""
    stdout("".join(json.dumps(m.to_json()) + "\n" for m in moments).encode())


def table(content: Table) -> None:
    """A table on stdout; as wide as it is where that is no terminal."""
    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = 400
    out.print(content)


class Progress:
    """Shows what a job does: lines, and on a terminal also a view of its nodes.

    Args:
        places: where each node runs.
        quiet: show nothing.
        before: says how many seconds the last run of this job took, None where there is none; a
            terminal alone wants to know.
    """

    def __init__(
        self,
        places: Mapping[str, str],
        *,
        quiet: bool = False,
        before: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._quiet = quiet
        self._lock = threading.Lock()
        self._width = min(max((len(n) for n in places), default=0), 36)
        self._view: LiveView | None = None
        if console.is_terminal and not quiet:
            self._view = LiveView(console, places, before())

    @property
    def is_live(self) -> bool:
        """Is there a view that wants to know what nodes do?"""
        return self._view is not None

    def __enter__(self) -> Progress:
        if self._view:
            self._view.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._view:
            self._view.stop()

    def __call__(self, event: JobEvent) -> None:
        """An observer for the job runner; called from any thread."""
        with self._lock:
            if self._view and event.node:
                name = f"run.{event.kind.replace('-', '_')}"
                self._view.take(Moment(event.at, event.node, name))
            if not self._quiet:
                self._line(event)

    def take(self, moment: Moment) -> None:
        """Takes what a node tells while it runs."""
        with self._lock:
            if self._view:
                self._view.take(moment)

    def say(self, line: str) -> None:
        """A line of a node's log."""
        with self._lock:
            console.print(f"[dim]{markup_escape(line)}[/dim]")

    def _line(self, event: JobEvent) -> None:
        colour = _COLOUR.get(event.kind)
        text = safe(event.text)
        if colour:
            text = f"[{colour}]{text}[/{colour}]"
        name = markup_escape(event.node.ljust(self._width)) + "  " if event.node else ""
        console.print(f"[dim]{event.at:8.3f} s[/dim]  {name}{text}")
