"""How the command line speaks: data to stdout, everything else to stderr."""

from __future__ import annotations

import io
import json
import os
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
from punchlib.runtime import state

#: Rich honours NO_COLOR by itself.
console = Console(stderr=True, highlight=False, soft_wrap=True)

_COLOUR = {"warning": "yellow", "node-failed": "red", "node-ended": "green"}
#: Characters of one message.
_MOST_TEXT = 20_000


class _Stdout(io.FileIO):
    """Descriptor 1: what cannot be written there is one message, whoever writes it."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise  # of a reader that has seen enough; Click ends without a word
        except OSError as error:
            let_go_of_stdout()
            raise PunchError(
                f"stdout cannot be written: {error.strerror}",
                next_step="make room there, or write elsewhere",
            ) from error


def let_go_of_stdout() -> None:
    """What is still in a buffer must not fail again when that is flushed at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def take_streams() -> None:
    """Makes the standard streams fit to be used, also those that are closed.

    A closed one stays one that cannot be read or written, and no file of ours takes its place.
    """
    state.fill_descriptors()
    if sys.stdout is not sys.__stdout__:
        return  # somebody has put theirs in its place, who called us as a function
    encoding, errors = "utf-8", "backslashreplace"
    if sys.stdout:
        sys.stdout.flush()
        encoding, errors = sys.stdout.encoding, sys.stdout.errors or errors
    raw = _Stdout(1, "w", closefd=False)
    lines = raw.isatty()
    buffered = io.BufferedWriter(raw)
    sys.stdout = io.TextIOWrapper(buffered, encoding, errors, line_buffering=lines)
    if not sys.stdin:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 (for the rest of our life)
    if not sys.stderr:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (the same; nobody wants to know)


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
