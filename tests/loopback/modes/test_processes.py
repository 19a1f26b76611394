"""Real pashlibs killed with -9 at a byte, or stopped, with the engine and without.

With the engine, a pashlib is two processes: the client that the script started, and the engine's
child that does the work. Either may die.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.pashlib_rig import (
    DEADLINE,
    MODES,
    PATIENCE,
    SECURITIES,
    Gated,
    World,
    batch,
    pair,
)
from tests.support.stream_rig import payload

MIB = 1 << 20
#: More than both kernels' buffers take: no stream of it ends before its reader lets it.
LARGE = 64 * MIB
WORKERS = 6


@dataclass(frozen=True)
class Case:
    """One end that gets a signal at a byte.

    Attributes:
        mode: engine or in-process.
        who: client or worker; without an engine they are the same.
        number: the signal.
        victim: send or recv.
        security: what both ends ask for.
        at: after so many bytes have come out.
    """

    mode: str
    who: str
    number: signal.Signals
    victim: str
    security: str
    at: int

    def __str__(self) -> str:
        name = self.number.name
        return "-".join((self.mode, self.who, name, self.victim, self.security, str(self.at)))


@dataclass
class Outcome:
    """How it ended.

    Attributes:
        dead, other: exit codes of who got the signal and of the other end; None: still stopped.
        lasted: seconds from the signal until it was over.
        rig: the stream's two stages.
        said: what the other end wrote to stderr.
        failures: both nodes' markers.
        told: the whole story, for people.
    """

    dead: int | None
    other: int
    lasted: float
    rig: Gated
    said: list[str]
    failures: tuple[list[str], list[str]]
    told: str


def run(world: World, case: Case, folder: Path) -> Outcome:
    rig = Gated(folder, payload(LARGE), pause_at=case.at)
    with (
        pair(
            world, case.mode, folder, [(rig.source, rig.sink)], PUNCH_SECURITY=case.security
        ) as both,
        rig.stages(),
    ):
        ends = (both.send, both.recv)
        dead, other = ends if case.victim == "send" else ends[::-1]
        assert rig.reached.wait(PATIENCE), both
        pid = dead.worker() if case.who == "worker" else dead.process.pid
        started = time.monotonic()
        os.kill(pid, case.number)
        rig.go_on.set()
        code = other.wait()
        if case.number is signal.SIGSTOP:
            ended_at = other.ended_at
            dead.kill()
        else:
            dead.wait()
            ended_at = max(dead.ended_at, other.ended_at)
        return Outcome(
            None if case.number is signal.SIGSTOP else dead.process.returncode,
            code,
            ended_at - started,
            rig,
            other.said,
            (dead.failures, other.failures),
            f"{case}\n{both}",
        )


@pytest.fixture(scope="module")
def runs(
    world: World, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Case, Future[Outcome]]]:
    def work(case: Case) -> Outcome:
        return run(world, case, tmp_path_factory.mktemp("run"))

    with batch(request, "case", work, WORKERS) as futures:
        yield futures


def check(ended: Outcome) -> None:
    assert ended.other == 6, ended.told
    assert any("at byte" in line for line in ended.said), ended.told
    assert ended.failures[1], ended.told
    assert ended.lasted < DEADLINE, ended.told
    assert len(ended.rig.got) < LARGE, ended.told
    assert ended.rig.data.startswith(bytes(ended.rig.got)), ended.told


STOPPED = [
    Case(mode, "worker", signal.SIGSTOP, victim, "authenticated", MIB)
    for mode in MODES
    for victim in ("send", "recv")
]


@pytest.mark.slow
@pytest.mark.parametrize("case", STOPPED, ids=str)
def test_a_stopped_end_is_dead_after_the_silence(
    runs: dict[Case, Future[Outcome]], case: Case
) -> None:
    """The connection stays up and nothing comes, as when a machine vanishes."""
    ended = runs[case].result()
    check(ended)
    why = "the peer's machine answers, its process has said nothing for 10 s"
    assert any(why in line for line in ended.said), ended.told


KILLED = [
    Case(mode, who, signal.SIGKILL, victim, security, at)
    for mode, who in (("engine", "client"), ("engine", "worker"), ("in-process", "client"))
    for victim in ("send", "recv")
    for security in SECURITIES
    for at in (1, 70_000, 3 * MIB)
]


@pytest.mark.parametrize("case", KILLED, ids=str)
def test_a_killed_end_is_an_error_at_the_other(
    runs: dict[Case, Future[Outcome]], case: Case
) -> None:
    """kill -9 in mid-stream: never a short result with exit 0."""
    ended = runs[case].result()
    check(ended)
    if case.who == "worker":
        assert ended.dead == 137, ended.told
    else:
        assert ended.dead == -signal.SIGKILL, ended.told
    if (case.mode, case.who) == ("engine", "client"):
        # Its child lived on for a moment, and knew what had happened.
        assert "stopped, while" in ended.failures[0][0], ended.told
