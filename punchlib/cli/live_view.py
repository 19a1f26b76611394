"""The live view of `punch run`: what each node does, how much has moved, what it waits for."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape as markup_escape
from rich.table import Table
from rich.text import Text

from punchlib.runs.dataflow import natural
from punchlib.runs.live import Board, NodeState, left
from punchlib.runs.timeline import Moment

#: A second, and rows at most: more would take more of a processor than it shows.
REFRESHES, MOST_ROWS = 1, 20
_COLOUR = {"ok": "green", "failed": "red", "running": "cyan", "starting": "yellow"}
#: What is of most interest first.
_ORDER = {"failed": 0, "running": 1, "starting": 2, "waiting": 3, "ok": 4}
#: Columns, and how wide a terminal must be to have them.
_COLUMNS = (
    ("NODE", 0),
    ("PLACE", 90),
    ("STATE", 0),
    ("ROUTE", 70),
    ("MOVED", 0),
    ("RATE", 60),
    ("WAITS FOR", 80),
)


class LiveView:
    """A table that follows a run on a terminal, and goes when it ends.

    Args:
        console: a terminal.
        places: where each node runs.
        before: how many seconds the last run of this job took; None where there is none.
    """

    def __init__(self, console: Console, places: Mapping[str, str], before: float | None) -> None:
        self._console = console
        self._board = Board(places)
        self._before = before
        self._began = time.monotonic()
        self._live = Live(
            console=console,
            refresh_per_second=REFRESHES,
            transient=True,
            get_renderable=lambda: self.render(time.monotonic() - self._began),
        )

    def start(self) -> None:
        """Shows it from now on."""
        self._live.start()

    def stop(self) -> None:
        """Takes it away."""
        self._live.stop()

    def take(self, moment: Moment) -> None:
        """Takes note of what has happened."""
        self._board.take(moment)

    def render(self, now: float) -> RenderableType:
        """What is to be seen, as large as the terminal has room for.

        Args:
            now: seconds since the run began.
        """
        nodes = list(self._board.nodes.items())
        width, rows = self._console.width, min(max(3, self._console.height - 6), MOST_ROWS)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        columns = [name for name, least in _COLUMNS if width >= least]
        for name in columns:
            right = name in ("MOVED", "RATE")
            table.add_column(name, justify="right" if right else "left", no_wrap=True)
        nodes.sort(key=lambda pair: (_ORDER.get(pair[1].state, 9), natural(pair[0])))
        for name, node in nodes[:rows]:
            cells = _cells(name, node, now)
            table.add_row(*(cells[column] for column in columns))
        return Group(table, Text(self._summary(nodes, rows, now), style="dim", no_wrap=True))

    def _summary(self, nodes: list[tuple[str, NodeState]], rows: int, now: float) -> str:
        states = [node.state for _, node in nodes]
        counts = ", ".join(f"{states.count(s)} {s}" for s in _ORDER if s in states)
        parts = [f"{len(nodes) - rows} more"] if len(nodes) > rows else []
        parts += [counts, f"{now:.0f} s"]
        if rest := left(now, self._before):
            parts.append(rest)
        return " · ".join(parts)


def _cells(name: str, node: NodeState, now: float) -> dict[str, str]:
    rate = node.rate(now)
    colour = _COLOUR.get(node.state, "dim")
    return {
        "NODE": markup_escape(name),
        "PLACE": node.place,
        "STATE": f"[{colour}]{node.state}[/{colour}]",
        "ROUTE": node.routes,
        "MOVED": size(node.moved) if node.streams else "",
        "RATE": f"{size(rate)}/s" if rate >= 1 else "",
        "WAITS FOR": node.waits_for,
    }


def size(count: float) -> str:
    """Bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
