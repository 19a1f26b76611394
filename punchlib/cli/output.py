"""How the command line speaks: data to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape as markup_escape
from rich.table import Table

from punchlib.errors import PunchError, escape
from punchlib.jobs.events import JobEvent

#: Rich honours NO_COLOR by itself.
console = Console(stderr=True, highlight=False, soft_wrap=True)

_COLOUR = {"warning": "yellow", "node-failed": "red", "node-ended": "green"}
#: Nodes shown one by one in the live view; of a wider job it shows the counts.
_ROWS = 24
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


def data(content: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(content, indent=2) + "\n")
    sys.stdout.flush()


class Progress:
    """Shows what a job does: lines, and on a terminal also a table that follows the nodes."""

    def __init__(self, nodes: Sequence[str], *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._lock = threading.Lock()
        self._states: dict[str, tuple[str, str]] = dict.fromkeys(nodes, ("", ""))
        self._width = min(max((len(n) for n in nodes), default=0), 36)
        self._live: Live | None = None
        if console.is_terminal and not quiet:
            self._live = Live(console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: JobEvent) -> None:
        """An observer for the job runner; called from any thread."""
        with self._lock:
            if event.node:
                self._states[event.node] = (event.kind, event.text)
            if self._quiet:
                return
            self._line(event)
            if self._live:
                self._live.update(self._table())

    def _line(self, event: JobEvent) -> None:
        colour = _COLOUR.get(event.kind)
        text = safe(event.text)
        if colour:
            text = f"[{colour}]{text}[/{colour}]"
        name = markup_escape(event.node.ljust(self._width)) + "  " if event.node else ""
        console.print(f"[dim]{event.at:8.3f} s[/dim]  {name}{text}")

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        if len(self._states) > _ROWS:
            kinds = [kind for kind, _ in self._states.values()]
            running, ended = kinds.count("node-started"), kinds.count("node-ended")
            failed = kinds.count("node-failed")
            table.add_row(f"{running} running", f"{ended} ended well", f"{failed} failed")
            return table
        for node, (kind, text) in self._states.items():
            if kind == "node-started":
                table.add_row("[cyan]…[/cyan]", markup_escape(node), markup_escape(text))
        return table
