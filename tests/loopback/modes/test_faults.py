"""Faults on the connection between two real pashlibs, with the engine and without.

As tests/loopback/stream/test_faults.py, with everything that a pashlib does around its stream:
rendezvous, several connections at once, redials, further attempts, S3. So a fault before the
nomination may also end well. `FAULTS=N` sets how many are drawn for each mode.

The same two exceptions hold: `authenticated` has no check on the payload, and a fault that hits the
ACK leaves a sender that fails though every byte is in place.
"""

from __future__ import annotations

import os
import random
import select
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from punchlib.core.frames import HEADER_SIZE
from punchlib.core.handshake import CONFIRMATION_SIZE, GREETING_SIZE
from tests.support import ministack
from tests.support.fault_gate import FaultGate, private_network
from tests.support.fault_proxy import SIZES, Fault, Kind
from tests.support.pashlib_rig import (
    DEADLINE,
    FACTOR,
    MODES,
    SECURITIES,
    World,
    batch,
    pair,
    world,
)
from tests.support.stream_rig import Rig, digest, payload
from tests.support.tiers import quick

COUNT = int(os.environ.get("FAULTS", "20"))
SEED = int(os.environ.get("FAULTS_SEED", "7"))
MIB = 1 << 20
#: Pairs that run at the same time: those that meet a silence wait for most of their life.
WORKERS = 10
#: PUNCH_TIMEOUT: longer than the deadline, so that it cannot pass for keeping it.
TIMEOUT = DEADLINE + 15.0 * FACTOR
#: Seconds, from the fault on, after which a pair counts as hanging. A success may take longer than
#: the deadline of a failure: a way that goes dark in its handshake costs an attempt.
HANGING = TIMEOUT + DEADLINE
#: An idle direction sends its first PING within this.
IDLE = 4.0
BUCKET = "faults"
VERIFIED = GREETING_SIZE + CONFIRMATION_SIZE


@dataclass(frozen=True)
class Case:
    """One injection.

    Attributes:
        mode: engine or in-process.
        name: tells it from the others of this mode.
        security: what both ends ask for.
        size: of the payload, bytes.
        fault: what happens.
        pause: seconds without payload in the middle of the stream.
        routes: PUNCH_ROUTES.
    """

    mode: str
    name: str
    security: str
    size: int
    fault: Fault
    pause: float = 0.0
    routes: str = "host"

    def __str__(self) -> str:
        return f"{self.mode}-{self.name}"


def draw(mode: str, number: int) -> Case:
    """The injection of this number; the same in both modes."""
    rng = random.Random(f"{SEED}/{number}")
    security = rng.choice(SECURITIES)
    kind = rng.choice([kind for kind in Kind if kind is not Kind.NONE])
    size = rng.choice(SIZES)
    forward = rng.random() < 0.75
    before = VERIFIED if security == "authenticated" else 1200
    if not forward:
        at = rng.randrange(0, 200 if security == "authenticated" else 1300)
    elif rng.random() < 0.5:
        at = rng.randrange(0, before + 40)  # the handshake, the nomination, the first header
    else:
        at = rng.randrange(0, before + size + 16)
    if kind is Kind.FLIP and security == "authenticated" and forward:
        at = rng.randrange(0, before)
    # A way that fails every time leaves S3.
    every = rng.random() < 0.2
    fault = Fault(kind, at, forward, rng.uniform(0.5, 6.0), rng.randrange(8), every)
    pause = IDLE if rng.random() < 0.1 else 0.0
    routes = "host,s3" if every else "host"
    return Case(mode, str(number), security, size, fault, pause, routes)


class Pausing(Rig):
    """A rig whose feeder falls silent in the middle, once the first half is arriving."""

    pause = 0.0

    def feed(self) -> None:
        half = len(self.data) // 2
        fd = os.open(self.source, os.O_WRONLY)
        try:
            self._write(fd, half)
            if half and self.pause:
                reader_left = select.poll()
                reader_left.register(fd, 0)
                while not self.got and not reader_left.poll(10):
                    pass
                reader_left.poll(self.pause * 1000)
            self._write(fd, len(self.data))
        except BrokenPipeError:
            pass
        finally:
            os.close(fd)

    def _write(self, fd: int, end: int) -> None:
        while self.fed < end:
            self.fed += os.write(fd, memoryview(self.data)[self.fed : end])


@dataclass
class Outcome:
    """How one injection ended.

    Attributes:
        codes: exit codes of sender and receiver.
        lasted: seconds from the fault until both had ended; None when nothing was struck.
        said: what both wrote to stderr.
        told: the whole story, for people.
    """

    rig: Rig
    fault: Fault
    codes: tuple[int, int]
    lasted: float | None
    said: tuple[list[str], list[str]]
    told: str


@dataclass
class Place:
    """A network of its own with a gate in it, and the programs."""

    world: World
    gate: FaultGate

    def run(self, case: Case, folder: Path) -> Outcome:
        rig = Pausing(folder, payload(case.size))
        rig.pause = case.pause
        started = time.monotonic()
        with self.gate.injection(case.fault) as introduced, rig.stages():

            def heard(sending: bool, line: str) -> None:
                # "connecting from A:P to B:Q": said before it dials, with the ports of both.
                words = line.split()
                if words[:2] == ["connecting", "from"]:
                    for address, end in ((words[2], sending), (words[4], not sending)):
                        introduced.listens(int(address.rpartition(":")[2]), sending=end)

            with pair(
                self.world,
                case.mode,
                folder,
                [(rig.source, rig.sink)],
                heard=heard,
                PUNCH_SECURITY=case.security,
                PUNCH_ROUTES=case.routes,
            ) as both:
                while not both.ended:
                    struck_at = introduced.injection.struck_at
                    waited = time.monotonic() - (struck_at or started)
                    assert waited < HANGING, f"{case!r}\n{both!r}"
                    time.sleep(0.02)
                codes = both.codes()
            struck_at = introduced.injection.struck_at
        ended_at = max(both.send.ended_at, both.recv.ended_at)
        lasted = None if struck_at is None else ended_at - struck_at
        told = f"{case}\n{case!r}\n{lasted=}, {codes=}\n{both}"
        return Outcome(rig, case.fault, codes, lasted, (both.send.said, both.recv.said), told)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("faults need root for a network namespace, and CI may not skip them")
        pytest.skip("needs root for a network namespace")
    folder = tmp_path_factory.mktemp("place")
    with private_network() as ns:
        rendezvous, process = ministack.start(folder)
        env = {**rendezvous.env, "AWS_BUCKET": BUCKET, "PUNCH_TIMEOUT": str(TIMEOUT)}
        try:
            with (
                FaultGate().running(ns, rendezvous.port) as gate,
                world(folder, env) as there,
            ):
                rendezvous.client("s3").create_bucket(Bucket=BUCKET)
                yield Place(there, gate)
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(scope="module")
def runs(
    place: Place, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Case, Future[Outcome]]]:
    def work(case: Case) -> Outcome:
        return place.run(case, tmp_path_factory.mktemp(f"run-{case}"))

    with batch(request, "case", work, WORKERS) as futures:
        yield futures


def check(run: Outcome) -> None:
    """Right bytes and two successes, or two typed errors in time."""
    sent, received = run.codes
    harmless = run.fault.kind in (Kind.DELAY, Kind.DUPLICATE)
    if sent == received == 0:
        assert digest(run.rig.got) == digest(run.rig.data), run.told
        assert run.rig.fed == len(run.rig.data), run.told
        return
    assert run.lasted is not None, run.told
    assert run.lasted < DEADLINE, run.told
    assert not harmless, run.told
    assert sent != 0, run.told
    if received == 0:
        assert sent == 6, run.told
        assert "everything came, but" in run.said[1][-1], run.told
        assert digest(run.rig.got) == digest(run.rig.data), run.told
    else:
        assert {sent, received} <= {3, 4, 5, 6}, run.told
        for said in run.said:
            assert any(line.startswith("pashlib: ") for line in said[2:]), run.told
        assert run.rig.data.startswith(bytes(run.rig.got)), run.told


ANSWER = GREETING_SIZE  # where the receiver's answer to the nomination begins
#: What is drawn too seldom.
AIMED: dict[str, Case] = {
    "nomination-lost": Case("", "", "authenticated", 5000, Fault(Kind.RESET, VERIFIED + 1)),
    "answer-lost": Case("", "", "authenticated", 5000, Fault(Kind.RESET, ANSWER + 1, False)),
    "answer-swallowed": Case(
        "", "", "authenticated", 5000, Fault(Kind.BLACKHOLE, ANSWER + 1, False)
    ),
    "no-route": Case("", "", "authenticated", 5000, Fault(Kind.RESET, 100, every=True)),
    "s3-instead": Case(
        "", "", "encrypted", MIB, Fault(Kind.RESET, 100, every=True), 0.0, "host,s3"
    ),
    # An empty stream is a nomination of 4 bytes and an END of 12, and then DONE.
    "done-swallowed": Case("", "", "authenticated", 0, Fault(Kind.BLACKHOLE, VERIFIED + 16)),
    "ack-swallowed": Case(
        "", "", "authenticated", 0, Fault(Kind.BLACKHOLE, ANSWER + HEADER_SIZE, False)
    ),
    "ping-becomes-stop": Case(
        "", "", "authenticated", 5000, Fault(Kind.FLIP, ANSWER + HEADER_SIZE, False), IDLE
    ),
    "length-grows": Case(
        "", "", "authenticated", 5000, Fault(Kind.FLIP, VERIFIED + HEADER_SIZE + 1)
    ),
}


@pytest.mark.parametrize(
    "case",
    quick([replace(c, mode=m, name=name) for m in MODES for name, c in AIMED.items()], len(AIMED)),
    ids=str,
)
def test_aimed(runs: dict[Case, Future[Outcome]], case: Case) -> None:
    run = runs[case].result()
    assert run.lasted is not None, "the fault did not happen"
    check(run)


@pytest.mark.nat
@pytest.mark.parametrize(
    "case", quick([draw(m, n) for n in range(COUNT) for m in MODES], 10), ids=str
)
def test_right_bytes_or_two_errors(runs: dict[Case, Future[Outcome]], case: Case) -> None:
    check(runs[case].result())
