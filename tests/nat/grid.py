"""The NAT grid: `make nat-grid`, or `python -m tests.nat.grid`.

Runs every pairing of the tables in `expected` and compares the route that was taken with the one
that is written there. Exits 1 when a cell differs.

    PAIR=A,B    only this cell
    JSON=FILE   also writes a list of {"a", "b", "expected_route", "route", "delivered",
                "setup_ms", "reason"}
    JOBS=N      so many cells at a time (default 2)
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tests.nat.cell import Outcome, run
from tests.nat.expected import Cell, cells
from tests.support.netlab import Lab, LabError


def choose(pair: str | None) -> list[Cell]:
    """The cells to run; a pair in either order names its cell.

    Raises:
        SystemExit: there is no such cell; the message lists the kinds.
    """
    everything = cells()
    if not pair:
        return everything
    wanted = tuple(part.strip() for part in pair.split(","))
    ways = (wanted, wanted[::-1], wanted * 2)
    found = next((f for way in ways if (f := [c for c in everything if _names(c) == way])), [])
    if not found:
        names = sorted({name for c in everything for name in _names(c)})
        print(
            f"nat-grid: no cell {pair!r}; PAIR=A,B with kinds {', '.join(names)}", file=sys.stderr
        )
        raise SystemExit(2)
    return found


def _names(cell: Cell) -> tuple[str, str]:
    return cell.a.name, cell.b.name


def run_all(chosen: Sequence[Cell], jobs: int) -> list[Outcome]:
    """Runs cells side by side; prints a line for each as it ends."""
    done = 0
    with Lab() as lab, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(run, lab, cell): i for i, cell in enumerate(chosen)}
        outcomes: dict[int, Outcome] = {}
        try:
            for future in concurrent.futures.as_completed(futures):
                outcome = outcomes[futures[future]] = future.result()
                done += 1
                print(_line(outcome, f"{done}/{len(chosen)}"), file=sys.stderr, flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [outcomes[i] for i in range(len(chosen))]


def _line(outcome: Outcome, count: str) -> str:
    mark = "ok  " if outcome.as_expected else "FAIL"
    arrived = "" if outcome.delivered else "  NOT DELIVERED"
    return (
        f"{count:>8} {mark} {outcome.cell.name:<34} {outcome.route:<9} "
        f"{outcome.setup_ms:>6} ms  {outcome.how}{arrived}"
    )


def as_json(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    return [
        {
            "a": o.cell.a.name,
            "b": o.cell.b.name,
            "expected_route": o.cell.route,
            "route": o.route,
            "delivered": o.delivered,
            "setup_ms": o.setup_ms,
            "reason": o.cell.reason,
        }
        for o in outcomes
    ]


def table(outcomes: Sequence[Outcome]) -> str:
    """The grid: rows send, columns receive. Hosts behind one NAT follow as a list."""
    apart = {_names(o.cell): o for o in outcomes if not o.cell.together}
    kinds = list(dict.fromkeys(name for pair in apart for name in pair))
    lines = ["rows send, columns receive: h host, p punched, 3 S3, ! not as expected, . not in it"]
    lines.append(" " * 21 + "".join(f"{n:>3}" for n in range(1, len(kinds) + 1)))
    for n, row in enumerate(kinds, 1):
        marks = "".join(f"{_mark(apart.get((row, column))):>3}" for column in kinds)
        lines.append(f"{n:>3} {row:<17}{marks}")
    lines += [
        f"both behind one {o.cell.a.name}: {o.route}{'' if o.as_expected else ' !'}"
        for o in outcomes
        if o.cell.together
    ]
    return "\n".join(lines if apart else lines[2:])


def _mark(outcome: Outcome | None) -> str:
    if outcome is None:
        return "."
    letter = {"host": "h", "punched": "p", "s3": "3"}.get(outcome.route, "-")
    return letter if outcome.as_expected else f"{letter}!"


def _stop(number: int, frame: FrameType | None) -> None:
    # SystemExit runs the lab's clean-up; the default action would leave it all behind.
    raise SystemExit(128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pair", default=os.environ.get("PAIR"))
    parser.add_argument("--json", type=Path, default=os.environ.get("JSON"))
    parser.add_argument("--jobs", type=int, default=int(os.environ.get("JOBS") or 2))
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    started = time.monotonic()
    try:
        outcomes = run_all(choose(arguments.pair), arguments.jobs)
    except LabError as error:
        print(f"nat-grid: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(as_json(outcomes), indent=1) + "\n")
    print(table(outcomes))
    wrong = [o for o in outcomes if not o.as_expected]
    for outcome in wrong:
        print(f"\n{outcome.explain()}", file=sys.stderr)
    print(
        f"\n{len(outcomes)} cells in {time.monotonic() - started:.0f} s: "
        f"{len(outcomes) - len(wrong)} passed, {len(wrong)} failed"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
