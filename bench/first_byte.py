"""From the start of both ends to the first payload byte: real `pashlib`s through two NATs.

    python -m bench.first_byte [--trials 50] [--skew 2] [--rtt 0 0.02 0.1] [--json FILE]

One host behind a NAT as Lambda has it, one behind one as EC2 has it, each with its node engine;
real STUN, the local DynamoDB API. In every trial either end sends, either starts first, the other
up to `--skew` seconds later; the sender's FIFO has data waiting, the receiver's has its reader. The
figure is the time from the exec of the later one to the first byte in the receiver's FIFO. Needs
root.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.punch import percentile
from bench.startup import bare
from tests.nat.cell import environment
from tests.support.netlab import Host, Lab, LabError
from tests.support.netlab_kinds import KINDS
from tests.support.netlab_program import Program

PAIR = ("lambda", "ec2")
#: Not counted: what every machine does once.
WARM_UP = 2
#: Seconds for the programs that run the ends to get ready for a start.
LEAD = 0.05
PATIENCE = 30.0
GOAL_MS = 250
#: In which order a connection comes about, as seen from the later end's start.
STEPS = (
    "later: own addresses known",
    "later: peer seen",
    "earlier: peer seen",
    "both: connected",
    "first byte",
)


class End(Program):
    """The program that runs one host's ends."""

    def __init__(self, host: Host, kind: str, folder: Path) -> None:
        folder.mkdir()
        super().__init__(
            host, "bench.first_byte_end", env=environment(KINDS[kind], folder, PATIENCE)
        )
        self.call_times: dict[str, list[float]] = self.answer()


def run_trial(ends: list[End], key: str, skew: float, chance: random.Random) -> dict[str, Any]:
    """One connection; when each step was, in seconds since the later end's start."""
    sender, later = chance.randrange(2), chance.randrange(2)
    start = time.monotonic() + LEAD
    apart = chance.uniform(0, skew)
    for i, end in enumerate(ends):
        end.send(key=key, sending=i == sender, at=start + (apart if i == later else 0.0))
    answers = [end.answer() for end in ends]
    for answer in answers:
        if answer["code"] or "route=punched" not in answer["said"]:
            raise LabError(f"an end failed ({answer['code']}), or did not punch:\n{answer['said']}")
    # A late start may come to pass before the early one, when they are close.
    late = max(answers, key=lambda answer: float(answer["began"]))
    early = answers[1 - answers.index(late)]
    times = (
        late["marks"]["own addresses known"],
        late["marks"]["peer seen"],
        early["marks"]["peer seen"],
        max(answer["marks"]["connected"] for answer in answers),
        answers[1 - sender]["first_byte"],
    )
    return {
        "skew": abs(answers[0]["began"] - answers[1]["began"]),
        "order": f"{'sender' if answers.index(late) == sender else 'receiver'} later",
        "steps": {name: at - late["began"] for name, at in zip(STEPS, times, strict=True)},
    }


def run(lab: Lab, rtt: float, trials: int, skew: float) -> dict[str, Any]:
    """All trials at one round-trip time."""
    chance = random.Random(f"first byte {rtt}")
    with (
        tempfile.TemporaryDirectory(prefix="plab-") as name,
        lab.site(KINDS[PAIR[0]]) as a,
        lab.site(KINDS[PAIR[1]]) as b,
        lab.wire(a, b, rtt=rtt),
    ):
        ends = [
            End(site.hosts[0], kind, Path(name) / kind)
            for site, kind in zip((a, b), PAIR, strict=True)
        ]
        units, done = [], []
        for n in range(-WARM_UP, trials):
            trial = run_trial(ends, f"trial{n}", skew, chance)
            unit = bare()
            if n >= 0:
                units.append(unit)
                done.append(trial)
        for end in ends:
            end.close()
    firsts = [trial["steps"]["first byte"] for trial in done]
    return {
        "rtt_ms": _ms(rtt),
        "trials": trials,
        "p50_ms": _ms(percentile(firsts, 0.5)),
        "p90_ms": _ms(percentile(firsts, 0.9)),
        "p99_ms": _ms(percentile(firsts, 0.99)),
        "max_ms": _ms(max(firsts)),
        f"over_{GOAL_MS}_ms": sum(first * 1000 > GOAL_MS for first in firsts) / trials,
        "U_ms": _ms(statistics.median(units)),
        "calls_p50_ms": {
            call: _ms(statistics.median(t for end in ends for t in end.call_times[call]))
            for call in ends[0].call_times
        },
        "steps_p50_ms": {
            who: {
                step: _ms(statistics.median(trial["steps"][step] for trial in mine))
                for step in STEPS
            }
            for who in ("sender later", "receiver later")
            if (mine := [trial for trial in done if trial["order"] == who])
        },
        "all": done,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def show(row: dict[str, Any]) -> None:
    times = " / ".join(f"{row[name]:.0f}" for name in ("p50_ms", "p90_ms", "p99_ms", "max_ms"))
    print(
        f"RTT {row['rtt_ms']:.0f} ms, {row['trials']} pairs: later start → first byte, "
        f"p50 / p90 / p99 / max {times} ms; over {GOAL_MS} ms: {row[f'over_{GOAL_MS}_ms']:.0%}"
    )
    calls = row["calls_p50_ms"]
    print(
        f"  beside: U {row['U_ms']} ms (bare python3 -I -S -c pass); the local DynamoDB API, p50: "
        f"update_item {calls['update_item']} ms,\n  on a new connection "
        f"{calls['update_item_new']} ms, batch_get_item {calls['batch_get_item']} ms"
    )
    steps = row["steps_p50_ms"]
    print(f"  {'steps, ms since the later start (p50)':40}" + "".join(f"{w:>16}" for w in steps))
    for step in STEPS:
        print(f"    {step:38}" + "".join(f"{steps[who][step]:16.0f}" for who in steps), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=50, help="for each RTT")
    parser.add_argument("--skew", type=float, default=2.0, help="seconds, at most")
    parser.add_argument("--rtt", type=float, nargs="*", default=[0.0], help="in seconds")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    rows = []
    try:
        with Lab() as lab:
            for rtt in args.rtt:
                rows.append(run(lab, rtt, args.trials, args.skew))
                show(rows[-1])
    except LabError as error:
        print(f"bench-first-byte: {error}", file=sys.stderr)
        return 1
    if args.json:
        args.json.write_text(json.dumps({"v": 1, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
