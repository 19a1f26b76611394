"""Runs one cell of the grid: two programs, one in each host, and a payload between them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from tests.nat.expected import Cell
from tests.support.netlab import STUN_ADDRESSES, Host, Lab
from tests.support.netlab_kinds import Kind
from tests.support.netlab_services import AWS_ENDPOINT, BUCKET, STUN_PORT

PAYLOAD = 300_000
TIME_FACTOR = float(os.environ.get("PUNCH_TEST_TIME_FACTOR", "1"))
#: Seconds: PUNCH_TIMEOUT of the programs, and what they get beyond it to end by themselves.
PATIENCE = 40.0 * TIME_FACTOR
GRACE = 5.0 * TIME_FACTOR
#: After this long even a connection that took every detour must be there.
LIMIT_MS = 6500 * TIME_FACTOR
MAX_SKEW = 0.5
LAST_LINES = 12

_MET = re.compile(r"^connecting from ")
_CONNECTED = re.compile(r"connected route=(\S+) .*how=(\S+)")


class Program(Protocol):
    """What a cell runs at an end."""

    def __call__(self, verb: str, key: str, fifo: Path, kind: Kind) -> list[str]:
        """The command line for `send` or `recv`."""
        ...


def pashlib(verb: str, key: str, fifo: Path, kind: Kind) -> list[str]:
    """The real thing, or an old peer where the kind says so."""
    argument = f"{verb}*{key}*{'0*1' if verb == 'send' else '1*0'}*{fifo}"
    if kind.old_peer:
        return [sys.executable, "-m", "tests.support.old_peer", kind.old_peer, argument]
    return [sys.executable, "-m", "punchlib.runtime.pashlib", argument]


@dataclass(frozen=True)
class End:
    """How one end's program ended.

    Attributes:
        returncode: its exit code; None when it had to be killed.
        lines: what it wrote to stderr, each line with the monotonic time at which it came.
    """

    returncode: int | None
    lines: tuple[tuple[float, str], ...]

    @property
    def met_at(self) -> float | None:
        """When it had first seen the other's record."""
        return next((at for at, line in self.lines if _MET.search(line)), None)

    @property
    def connected(self) -> tuple[float, str, str] | None:
        """When it was connected, by which route and technique, in its own words."""
        for at, line in reversed(self.lines):
            if found := _CONNECTED.search(line):
                return at, found[1], found[2]
        return None


class _Stderr(threading.Thread):
    """Notes down what a process writes, and when."""

    def __init__(self, pipe: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self.lines: list[tuple[float, str]] = []
        self.start()

    def run(self) -> None:
        for line in self._pipe:
            self.lines.append((time.monotonic(), line.decode(errors="replace").rstrip()))


@dataclass(frozen=True)
class Outcome:
    """What came of a cell.

    Attributes:
        cell: what was run.
        delivered: every byte arrived, and both programs ended well.
        route: what both ends said, or "none", or "disagreed".
        setup_ms: from when both were registered to the slower end's being connected, by our
            clock; 0 when there was no connection.
        how: the technique, in the program's words.
        ends: sender and receiver.
    """

    cell: Cell
    delivered: bool
    route: str
    setup_ms: int
    how: str
    ends: tuple[End, End]

    @property
    def as_expected(self) -> bool:
        return self.delivered and self.route == self.cell.route and self.setup_ms <= LIMIT_MS

    def explain(self) -> str:
        """For a person who wonders what went wrong."""
        said = "\n".join(
            f"--- {who} ended with {end.returncode}:\n"
            + "\n".join(line for _, line in end.lines[-LAST_LINES:])
            for who, end in zip(("sender", "receiver"), self.ends, strict=True)
        )
        return (
            f"{self.cell.name}: expected {self.cell.route} ({self.cell.reason}); "
            f"got {self.route} after {self.setup_ms} ms, delivered={self.delivered}\n{said}"
        )


def run(
    lab: Lab,
    cell: Cell,
    *,
    program: Program = pashlib,
    rtt: float = 0.0,
    loss: float = 0.0,
    seed: int | None = None,
    patience: float = PATIENCE,
    pause: float = 0.0,
) -> Outcome:
    """Builds the cell's sites, runs it, takes them down again.

    Args:
        lab: where.
        cell: what.
        program: what runs at each end.
        rtt, loss: of the wire between two sites.
        seed: of the order and the skew of the two starts.
        patience: seconds that an end waits for the other.
        pause: seconds for which the stream stands still after its first bytes.
    """
    chance = random.Random(f"{cell.name} {seed}")
    with _hosts(lab, cell, rtt, loss) as hosts:
        skew = chance.uniform(0, MAX_SKEW)
        # An old peer dials as soon as it sees our record and has no second try: it comes first,
        # the order that can always work.
        old = [i for i, kind in enumerate((cell.a, cell.b)) if kind.old_peer]
        first = old[0] if old else chance.randrange(2)
        ends, delivered = _transfer(
            hosts, cell, program, first, skew if not old else 1.0, patience, pause
        )
    said = [end.connected for end in ends if end.connected is not None]
    routes = {route for _, route, _ in said}
    new = [kind for kind in (cell.a, cell.b) if not kind.old_peer]
    if not said:
        route = "none"
    elif len(routes) > 1 or len(said) < len(new):
        route = "disagreed"
    else:
        route = routes.pop()
    # The second to arrive sees the first at once, by its own registration.
    both_there = min((end.met_at for end in ends if end.met_at is not None), default=0.0)
    connected = max((at for at, _, _ in said), default=both_there)
    return Outcome(
        cell,
        delivered,
        route,
        max(0, round((connected - both_there) * 1000)),
        " ".join(sorted({how for _, _, how in said})),
        ends,
    )


@contextlib.contextmanager
def _hosts(lab: Lab, cell: Cell, rtt: float, loss: float) -> Iterator[tuple[Host, Host]]:
    if cell.together:
        with lab.site(cell.a, hosts=2) as site:
            yield site.hosts[0], site.hosts[1]
    else:
        with lab.site(cell.a) as a, lab.site(cell.b) as b, lab.wire(a, b, rtt=rtt, loss=loss):
            yield a.hosts[0], b.hosts[0]


def environment(kind: Kind, folder: Path, patience: float) -> dict[str, str]:
    """What a node's programs find in their environment."""
    servers = ",".join(f"{address}:{STUN_PORT}" for address in STUN_ADDRESSES)
    keep: Mapping[str, str] = {k: v for k, v in os.environ.items() if not _is_ours(k)}
    return {
        **keep,
        "AWS_ENDPOINT_URL": AWS_ENDPOINT,
        "AWS_ACCESS_KEY_ID": "lab",
        "AWS_SECRET_ACCESS_KEY": "lab",
        "AWS_REGION": "us-east-1",
        "AWS_BUCKET": BUCKET,
        "PASH_STUN_SERVER": servers,
        "PUNCH_STATE_DIR": str(folder),
        "PUNCH_TIMEOUT": str(patience),
        "HOME": str(folder),
        **({"LEASH_ON_LAMBDA": "1"} if kind.name.startswith("lambda") else {}),
    }


def _is_ours(name: str) -> bool:
    return name.startswith(("AWS_", "PASH_", "PUNCH_", "LEASH_"))


def _transfer(
    hosts: tuple[Host, Host],
    cell: Cell,
    program: Program,
    first: int,
    skew: float,
    patience: float,
    pause: float,
) -> tuple[tuple[End, End], bool]:
    """Sends the payload from the first host to the second; whether all of it arrived."""
    payload = os.urandom(PAYLOAD)
    key = os.urandom(8).hex()
    with tempfile.TemporaryDirectory(prefix="plab-") as name:
        folder = Path(name)
        (folder / "payload").write_bytes(payload)
        programs: dict[int, subprocess.Popen[bytes]] = {}
        said: dict[int, _Stderr] = {}
        for i in (first, 1 - first):
            mine = folder / str(i)
            mine.mkdir()
            os.mkfifo(mine / "fifo")
            kind = (cell.a, cell.b)[i]
            programs[i] = hosts[i].ns.popen(
                program(("send", "recv")[i], key, mine / "fifo", kind),
                env=environment(kind, mine, patience),
                stderr=subprocess.PIPE,
            )
            stderr = programs[i].stderr
            assert stderr is not None
            said[i] = _Stderr(stderr)
            # Opening a FIFO waits for the other end: that is for a process of its own.
            source = f"{{ head -c 5000; sleep {pause}; cat; }} <{folder}/payload"
            plumbing = (f"{source} >{mine}/fifo", f"cat {mine}/fifo > {folder}/got")
            hosts[i].ns.popen(["sh", "-c", plumbing[i]])
            if i == first:
                time.sleep(skew)
        deadline = time.monotonic() + patience + GRACE
        for process in programs.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
        codes = [programs[i].poll() for i in (0, 1)]
        for i, host in enumerate(hosts):
            programs[i].kill()
            said[i].join()
            host.ns.reap()
        ends = [End(code, tuple(said[i].lines)) for i, code in enumerate(codes)]
        got = folder / "got"
        whole = got.exists() and _digest(got.read_bytes()) == _digest(payload)
    return (ends[0], ends[1]), whole and codes == [0, 0]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
