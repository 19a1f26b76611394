"""What a run's nodes do, in words: connections, processes, FIFOs, and what probably is wrong."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from punchlib.errors import UsageError, escape
from punchlib.runs import run_folder
from punchlib.runs.live import Board
from punchlib.runs.timeline import Moment

#: Seconds for nodes to answer: they look every 3 s, and CloudWatch takes its time.
HOME_PATIENCE, AWS_PATIENCE = 8.0, 20.0


class Inspection:
    """A run that goes on, or has ended.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.report = run_folder.load_report(folder)
        self._word = ""

    @property
    def runs(self) -> bool:
        """Does it go on?"""
        return not self.report and run_folder.goes_on(self.folder)

    def ask(self) -> None:
        """Asks its nodes, and waits until all that run have answered, or the time is up.

        Raises:
            UsageError: its folder cannot be written.
        """
        self._word = secrets.token_hex(8)
        try:
            run_folder.ask(self.folder, self._word)
        except OSError as error:
            raise UsageError(f"{self.folder} cannot be written: {error.strerror}") from None
        moments = self._moments()
        local = any(m.attributes.get("punch.local") for m in moments)
        deadline = time.monotonic() + (HOME_PATIENCE if local else AWS_PATIENCE)
        while time.monotonic() < deadline and not run_folder.load_report(self.folder):
            board, answers = self._look()
            running = {name for name, node in board.nodes.items() if node.state == "running"}
            if running and running <= answers.keys():
                return
            time.sleep(0.3)
        self.report = run_folder.load_report(self.folder)

    def lines(self) -> list[str]:
        """What there is to say, safe to print."""
        board, answers = self._look()
        out = [self._headline(board)]
        failures = _failures(self._moments())
        for name, node in board.nodes.items():
            waits = f", waits for {node.waits_for}" if node.waits_for else ""
            out.append(f"{escape(name)} ({node.place}): {node.state}{waits}")
            for (key, direction), stream in node.streams.items():
                route = f" by {stream.route}" if stream.route else ""
                moved = f", {stream.bytes:,.0f} bytes" if stream.bytes else ""
                out.append(f"  {direction} {escape(key)}: {stream.step}{route}{moved}")
            out += [f"  failed: {escape(why)}" for why in failures.get(name, ())]
            out += [f"  {line}" for line in answers.get(name, ())]
            if self.runs and node.state == "running" and name not in answers and self._word:
                out.append("  its processes: it did not answer in time")
        if cause := (self.report.get("error") or {}).get("message"):
            out += ["the run failed:", *(f"  {line}" for line in escape(cause).splitlines())]
        return out

    def _headline(self, board: Board) -> str:
        name = self.folder.name
        if self.report:
            how = "went well" if self.report.get("ok") else "failed"
            return f"{name} {how} after {self.report.get('elapsed_s', 0):.1f} s"
        if self.runs:
            return f"{name} runs, with {len(board.nodes)} nodes"
        return f"{name} was killed, or is another machine's; what its nodes last told:"

    def _moments(self) -> list[Moment]:
        return run_folder.load_moments(self.folder)

    def _look(self) -> tuple[Board, dict[str, list[str]]]:
        """What each node does, and what those have answered that were asked."""
        moments = self._moments()
        live = run_folder.load_moments(self.folder, run_folder.LIVE)
        starts = [m for m in moments if m.event == "run.node_started"]
        board = Board({m.node: m.text("punch.place") for m in starts})
        for moment in sorted([*moments, *live], key=lambda m: m.at):
            board.take(moment)
        return board, _answers(live, self._word)


def _answers(live: Sequence[Moment], word: str) -> dict[str, list[str]]:
    """For each node that has answered this word, what it said."""
    said: dict[str, list[str]] = {}
    answers: dict[str, list[str]] = {}
    for moment in live:
        lines = said.setdefault(moment.node, [])
        if moment.event == "node.process":
            lines.append(_process(moment))
        elif moment.event == "node.fifo":
            lines.append(_fifo(moment))
        elif moment.event == "node.stock":
            if word and moment.text("punch.ask") == word:
                fifos, waiting = moment.number("punch.fifos"), moment.number("punch.waiting")
                last = f"{fifos:.0f} FIFOs, {waiting:.0f} of them not open at both ends"
                answers[moment.node] = [*lines, last]
            said[moment.node] = []
    return answers


def _process(moment: Moment) -> str:
    text = f"pid {moment.text('process.pid')} {moment.text('punch.state')}"
    text += f" {moment.number('process.cpu.time'):.2f} s"
    waits = ", waits for the other end of a FIFO" if moment.attributes.get("punch.opening") else ""
    return escape(f"{text} {moment.text('process.command_line')[:160]}{waits}")


def _fifo(moment: Moment) -> str:
    readers, writers = moment.number("punch.readers"), moment.number("punch.writers")
    if readers:
        what = "somebody reads, nobody writes"
    else:
        what = "somebody writes, nobody reads" if writers else "neither end is open"
    named = moment.text("punch.named_by")
    return escape(f"{moment.text('file.path')}: {what}" + (f" ({named[:200]})" if named else ""))


def _failures(moments: Sequence[Moment]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for moment in moments:
        if moment.event == "connection.failed":
            found.setdefault(moment.node, []).append(
                f"{moment.text('punch.key')}: {moment.text('error.message')}"
            )
        elif moment.event == "run.node_failed":
            found.setdefault(moment.node, []).append(moment.text("punch.text"))
    return found


def item_of(client: Any, table: str, key: str) -> dict[str, Any]:
    """A key's item in the rendezvous table; {} where there is none."""
    answer = client.get_item(TableName=table, Key={"key": {"S": key}}, ConsistentRead=True)
    return dict(answer.get("Item") or {})
