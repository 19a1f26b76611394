"""Strikes the victim of a case, and ends what a case has left."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.truth import victims
from tests.truth.case import Case
from tests.truth.starting import Running
from tests.truth.verdict import FACTOR
from tests.truth.world import World, fill

#: Seconds for a victim to appear.
SEARCH = 2.0 * FACTOR
#: Seconds for which a stopped victim stands.
STANDSTILL = 0.4
#: Seconds for what a killed shell or client leaves behind to end by itself.
AFTERMATH = 8.0 * FACTOR


@dataclass
class Striker:
    """The hand that strikes.

    Attributes:
        nonce: of the run.
        folder: of the run.
        disk: where a small disk is, for a case that has one.
        nodes: what runs.
        struck: somebody was.
        killed: who, for people.
    """

    case: Case
    world: World
    nonce: str
    folder: Path
    disk: Path
    nodes: list[Running]
    struck: bool = False
    killed: str = ""

    def strike(self, go: int) -> None:
        """Strikes, and lets the bomb go on.

        Args:
            go: the pipe that it reads.
        """
        case = self.case
        time.sleep(case.delay)
        if case.disk == "state-fills":
            fill(self.disk)
        if case.moment == "commit":
            os.write(go, b"\n")
        there = next(n for n in self.nodes if n.node.name == case.node)
        until = time.monotonic() + (20 * FACTOR if case.moment == "commit" else SEARCH)
        while not (pids := self._victims(there)) and time.monotonic() < until and not there.ended:
            time.sleep(0.003 if case.moment == "commit" else 0.03)
        name = "STOP" if case.signal == "STOP" else case.signal
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                self.killed += f"SIG{name} to {pid}: {' '.join(victims.words(pid))[:150]}\n"
                os.kill(pid, signal.Signals[f"SIG{name}"])
                self.struck = True
        if case.signal == "STOP" and pids:
            time.sleep(STANDSTILL)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        if case.moment != "commit":
            os.write(go, b"\n")

    def _victims(self, there: Running) -> list[int]:
        case, node = self.case, there.node
        if case.victim == "engine" and case.moment != "commit":
            return [self.world.engines[self.nonce]]
        shell = there.shell()
        if not shell:
            return []
        among = victims.processes()
        if case.by_hand and shell not in victims.of_run(self.nonce, among):
            return []  # it has ended, and its pid may be another's
        below = self._below(shell, among)
        engine_pid = self.world.engines.get(self.nonce, self.world.engine)
        if case.moment == "commit":
            committer = victims.client("punch-commit", [], below)
            if not committer:
                return []
            if case.victim == "engine":
                return [engine_pid]
        role, _, worker = case.victim.partition("-")
        match role:
            case "bash":
                found = shell
            case "group":
                return [shell, *below]
            case "committer" if worker:
                held = set(node.fifos)
                found = victims.committer_worker(engine_pid, self.folder / node.name, held, among)
            case "committer":
                found = committer
            case "stage":
                found = victims.stage(node.find("stage"), below)
            case "wrap":
                found = victims.client("r_wrap", [], below)
            case _:
                element = node.find(role)
                fifos = element.inputs + element.outputs
                if worker:
                    found = victims.worker(engine_pid, fifos[0], among)
                else:
                    found = victims.client(element.tool, fifos, below)
        return [found] if found else []

    def end_all(self) -> None:
        """The time is up: ends what runs, and remembers what that was."""
        among = victims.processes()
        for running in self.nodes:
            if running.ended or not (shell := running.shell()):
                continue
            pids = [shell, *self._below(shell, among)]
            for pid in pids:
                self.killed += f"still there: {pid} {' '.join(victims.words(pid))[:150]}\n"
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + AFTERMATH
        while any(n.ended is None for n in self.nodes) and time.monotonic() < deadline:
            time.sleep(0.05)

    def sweep(self) -> None:
        """By hand nobody ends what a killed shell or client leaves: waits for it, then does."""
        with contextlib.suppress(OSError):
            (self.folder / "struck").write_text(self.killed or "nothing was struck\n")
        if not self.case.by_hand:
            return
        deadline = time.monotonic() + AFTERMATH
        pause = 0.05
        while left := list(self._left()):
            if time.monotonic() > deadline:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    def _below(self, shell: int, among: list[victims.Process]) -> list[int]:
        """The processes of the script that this bash runs, and no others."""
        found = victims.below(shell, among)
        if self.case.by_hand:
            ours = set(victims.of_run(self.nonce, among))
            return [pid for pid in found if pid in ours]
        return found

    def _left(self) -> Iterator[int]:
        among = victims.processes()
        yield from victims.of_run(self.nonce, among)
        engine = self.world.engines.get(self.nonce, self.world.engine)
        for running in self.nodes:
            if pid := victims.worker_below(engine, running.node.folder, among):
                yield pid
