"""Trials of opening a connection through two NATs, with punchlib's own connector.

    python -m bench.punch [--trials 1000] [--skew 60] [--json FILE]

Each condition (RTT and loss) has the same share of the trials, spread over pairs of NATs. In every
trial both ends start at a random time, up to `--skew` seconds apart, either one first; the figure
is the time from the later start to both ends' having verified each other and nominated the
connection. Waiting is real time: trials overlap. The rendezvous answers in 5 ms. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.netlab import AWS_ADDRESS, STUN_ADDRESSES, Host, Lab
from tests.support.netlab_kinds import KINDS
from tests.support.netlab_program import Program
from tests.support.netlab_services import STUN_PORT

PAIRS = (
    ("lambda", "ec2"),
    ("lambda", "lambda"),
    ("eim-rst", "eim-rst"),
    ("eim-icmp", "eim-random-rst"),
    ("double-rst", "fw-rst"),
)
CONDITIONS = tuple((rtt, loss) for loss in (0.0, 0.05) for rtt in (0.0, 0.02, 0.1))
STORE_PORT = 4600
#: New trials a second over all pairs: what this machine can do without getting in its own way.
RATE = 4.0


@dataclass(frozen=True)
class Trial:
    """What came of one.

    Attributes:
        seconds: later start to connected at both ends; None when it was not direct.
        attempt: the attempt that made it.
        why: what the ends said when it failed.
    """

    pair: tuple[str, str]
    skew: float
    seconds: float | None
    attempt: int
    how: str
    why: str


class End(Program):
    """A worker process in a host."""

    def __init__(self, host: Host, kind: str, timeout: float) -> None:
        super().__init__(
            host,
            "bench.punch_end",
            f"{AWS_ADDRESS}:{STORE_PORT}",
            ",".join(f"{address}:{STUN_PORT}" for address in STUN_ADDRESSES),
            f"--timeout={timeout}",
            *(["--on-lambda"] if kind == "lambda" else []),
        )
        self.answer()


def run_condition(lab: Lab, rtt: float, loss: float, trials: int, skew: float) -> list[Trial]:
    """All trials of one condition, side by side on all pairs."""
    chance = random.Random(f"{rtt} {loss}")
    with contextlib.ExitStack() as stack:
        ends = {pair: stack.enter_context(_pair(lab, pair, rtt, loss, skew + 60)) for pair in PAIRS}
        base = time.monotonic() + 0.5
        planned: dict[tuple[str, str], dict[str, float]] = {pair: {} for pair in PAIRS}
        for n in range(trials):
            pair = PAIRS[n % len(PAIRS)]
            key = f"{rtt}-{loss}-{n}-{os.getpid()}"
            apart = chance.uniform(0, skew)
            early = base + chance.uniform(0, trials / RATE)
            starts = [early, early + apart]
            chance.shuffle(starts)
            sender = chance.randrange(2)
            for i, end in enumerate(ends[pair]):
                end.send(key=key, sending=i == sender, at=starts[i])
            planned[pair][key] = apart
        return [trial for pair in PAIRS for trial in _results(pair, ends[pair], planned[pair])]


@contextlib.contextmanager
def _pair(
    lab: Lab, pair: tuple[str, str], rtt: float, loss: float, timeout: float
) -> Iterator[tuple[End, End]]:
    with (
        lab.site(KINDS[pair[0]]) as a,
        lab.site(KINDS[pair[1]]) as b,
        lab.wire(a, b, rtt=rtt, loss=loss),
    ):
        yield End(a.hosts[0], pair[0], timeout), End(b.hosts[0], pair[1], timeout)


def _results(
    pair: tuple[str, str], ends: tuple[End, End], planned: dict[str, float]
) -> Iterator[Trial]:
    answers = [{a["key"]: a for a in (end.answer() for _ in planned)} for end in ends]
    for key, skew in planned.items():
        both = [answer[key] for answer in answers]
        why = "; ".join(filter(None, (answer["why"] for answer in both)))
        if why:
            yield Trial(pair, skew, None, 0, "", why)
            continue
        began = max(answer["began"] for answer in both)
        seconds = max(answer["at"] for answer in both) - began
        attempt = max(answer["attempt"] for answer in both)
        yield Trial(pair, skew, seconds, attempt, both[0]["how"], "")


def percentile(values: Sequence[float], share: float) -> float:
    """The value that a share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(rtt: float, loss: float, trials: Sequence[Trial]) -> dict[str, Any]:
    direct = [t for t in trials if t.seconds is not None]
    times = [t.seconds for t in direct if t.seconds is not None] or [float("nan")]
    return {
        "rtt_ms": round(rtt * 1000),
        "loss": loss,
        "trials": len(trials),
        "direct": len(direct) / len(trials),
        "first_attempt": sum(t.attempt == 1 for t in direct) / len(trials),
        **{
            name: round(percentile(times, share), 4)
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
        },
        "over_0.9_s": sum(t > 0.9 for t in times) / len(trials),
        "by_pair": {
            ",".join(pair): {
                "p50": round(percentile(mine, 0.5), 4),
                "max": round(max(mine), 4),
                "over_0.9_s": sum(t > 0.9 for t in mine),
                "trials": len(mine),
            }
            for pair in PAIRS
            if (mine := [t.seconds for t in direct if t.pair == pair and t.seconds is not None])
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1000, help="over all conditions")
    parser.add_argument("--skew", type=float, default=60.0, help="seconds, at most")
    parser.add_argument("--rtt", type=float, nargs="*", help="only these, in seconds")
    parser.add_argument("--loss", type=float, nargs="*", help="only these, 0 to 1")
    parser.add_argument("--json", type=Path, default=os.environ.get("JSON"))
    arguments = parser.parse_args()
    conditions = [
        (rtt, loss)
        for rtt, loss in CONDITIONS
        if (arguments.rtt is None or rtt in arguments.rtt)
        and (arguments.loss is None or loss in arguments.loss)
    ]
    if not conditions:
        parser.error(f"no such condition; there are (RTT, loss) {CONDITIONS}")
    share = max(len(PAIRS), -(-arguments.trials // len(conditions)))
    rows = []
    print("rtt ms  loss  trials  direct  first   p50    p90    p99    max   >0.9 s   (s)")
    with Lab() as lab:
        assert lab.services is not None
        store = lab.services.ns.popen(
            [sys.executable, "-m", "bench.punch_store", AWS_ADDRESS, str(STORE_PORT)],
            stdout=subprocess.PIPE,
        )
        assert store.stdout is not None
        store.stdout.readline()
        for rtt, loss in conditions:
            trials = run_condition(lab, rtt, loss, share, arguments.skew)
            row = summary(rtt, loss, trials)
            rows.append(row)
            print(
                f"{row['rtt_ms']:>6}  {loss:>4.0%}  {row['trials']:>6}  {row['direct']:>6.1%}  "
                f"{row['first_attempt']:>5.1%}  {row['p50']:.3f}  {row['p90']:.3f}  "
                f"{row['p99']:.3f}  {row['max']:.3f}  {row['over_0.9_s']:>5.1%}",
                flush=True,
            )
            for trial in trials:
                if trial.seconds is None or trial.attempt > 1:
                    print(f"  {trial}", file=sys.stderr)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
