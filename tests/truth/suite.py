"""Many drawn cases in one world, several at a time; what failed, made simple; the table."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from tests.truth import case as cases
from tests.truth.case import Case, draw, simpler
from tests.truth.running import BEFORE, Run, read_object
from tests.truth.verdict import GOOD, Outcome
from tests.truth.world import World

#: Cases that run at the same time: most of their life is waiting.
WORKERS = int(os.environ.get("TRUTH_WORKERS", "20"))
#: Failing cases of different kinds that are made simple.
SIMPLIFIED = 6
#: Seconds for all of that.
SIMPLIFYING = 120.0
#: Runs that a simpler case gets to show the same.
TRIES = 3
#: From that many cases on, every value of every dimension must have come up.
COVERING = 2000
DIMENSIONS: dict[str, Mapping[Any, object]] = {
    "way": cases.WAYS,
    "topology": cases.TOPOLOGIES,
    "reader": cases.READERS,
    "work": cases.WORKS,
    "tee": cases.TEES,
    "construct": cases.CONSTRUCTS,
    "prologue": cases.PROLOGUES,
    "victim": cases.VICTIMS,
    "signal": cases.SIGNALS,
    "moment": cases.MOMENTS,
    "disk": cases.DISKS,
    "peer": cases.PEERS,
    "size": cases.SIZES,
    "routes": cases.ROUTES,
    "security": cases.SECURITIES,
    "late": cases.LATENESS,
}


@dataclass
class Report:
    """What came of a draw.

    Attributes:
        outcomes: of all cases, as they ended.
        bad: those that failed, with the simplest case that fails alike.
        changed: keys of refused cases whose object has changed since.
        seconds: of the draw itself.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    bad: list[tuple[Outcome, Case | None]] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def uncovered(self) -> list[str]:
        """Values that no case had, where there were enough cases."""
        if len(self.outcomes) < COVERING:
            return []
        return [
            f"{name} {value!r}"
            for name, table in DIMENSIONS.items()
            for value in table
            if not any(_has(o.case, name, value) for o in self.outcomes)
        ]

    @property
    def good(self) -> bool:
        return not (self.bad or self.changed or self.uncovered)


def run_all(world: World, drawn: Sequence[Case], *, progress: bool = False) -> Report:
    """Runs the cases; then the simpler forms of those that failed."""
    report = Report()
    began = time.monotonic()
    with ThreadPoolExecutor(WORKERS) as pool:
        futures = [pool.submit(_one, world, case) for case in drawn]
        try:
            for number, future in enumerate(as_completed(futures), 1):
                report.outcomes.append(future.result())
                if progress:
                    _tell(number, began, report.outcomes[-1])
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        report.seconds = time.monotonic() - began
        report.changed = [o.key for o in report.outcomes if _changed(world, o)]
        bad = [o for o in report.outcomes if not o.good]
        chosen = _different(bad)
        until = time.monotonic() + SIMPLIFYING
        simpler_ones = pool.map(lambda o: simplify(world, o, until), chosen)
        simple = dict(zip(map(id, chosen), simpler_ones, strict=True))
    report.bad = [(o, simple.get(id(o))) for o in bad]
    return report


def _one(world: World, case: Case) -> Outcome:
    try:
        return Run(case, world).outcome()
    except Exception as error:
        return Outcome(case, "broken", [], f"the suite itself failed: {error!r}", False, 0.0)


def _tell(number: int, began: float, outcome: Outcome) -> None:
    if number % 100 == 0 or not outcome.good:
        rate = number / (time.monotonic() - began)
        print(f"{number} cases, {rate:.1f} a second", file=sys.stderr, flush=True)
    if not outcome.good:
        print(outcome, file=sys.stderr, flush=True)


def _changed(world: World, outcome: Outcome) -> bool:
    """Nobody may complete an upload after all has ended."""
    if outcome.verdict != "refused" or outcome.case.peer != "v2":
        return False
    return read_object(world, outcome.key) != (BEFORE if outcome.case.before else None)


def _different(bad: Iterable[Outcome]) -> list[Outcome]:
    """Some of them, no two alike at first sight."""
    kinds: dict[object, Outcome] = {}
    for o in bad:
        c = o.case
        kind = (o.verdict, c.victim, c.quits, c.moment) if o.struck else (o.verdict, c.prologue)
        kinds.setdefault(kind, o)
    return list(kinds.values())[:SIMPLIFIED]


def simplify(world: World, outcome: Outcome, until: float) -> Case:
    """The simplest case that ends in the same bad way, as far as a greedy search finds it.

    Args:
        until: `time.monotonic()` at which the search ends.
    """
    case, again = outcome.case, True
    while again:
        again = False
        for candidate in simpler(case):
            if time.monotonic() > until:
                return case
            runs = (_one(world, candidate) for _ in range(TRIES))
            if any(run.verdict == outcome.verdict for run in runs):
                case, again = candidate, True
                break
    return case


def drawn(count: int, seed: str) -> list[Case]:
    return [draw(seed, number) for number in range(count)]


def table(outcomes: Sequence[Outcome]) -> str:
    """For each value of each dimension: cases, and how they ended."""
    verdicts = [*GOOD, "bad"]
    lines = [f"{'':32}{'cases':>7}" + "".join(f"{v:>9}" for v in verdicts) + f"{'struck':>9}"]
    for name, values in DIMENSIONS.items():
        for value in values:
            having = [o for o in outcomes if _has(o.case, name, value)]
            ends = Counter(o.verdict if o.good else "bad" for o in having)
            label = f"{name} {value if value != '' else '(default)'}"
            counts = "".join(f"{ends[v] or '':>9}" for v in verdicts)
            struck = sum(o.struck for o in having)
            lines.append(f"{label:32}{len(having):>7}{counts}{struck or '':>9}")
    ends = Counter(o.verdict for o in outcomes)
    lines.append(f"in all {len(outcomes)}: " + ", ".join(f"{n} {v}" for v, n in ends.items()))
    return "\n".join(lines)


def _has(case: Case, name: str, value: object) -> bool:
    found = getattr(case, name)
    if name in ("signal", "moment") and case.victim == "none":
        return False
    return value in found if isinstance(found, tuple) else found == value


def text(report: Report) -> str:
    """The table, and everything that is bad."""
    lines = [table(report.outcomes)]
    rate = len(report.outcomes) / max(report.seconds, 0.001)
    lines.append(f"{report.seconds:.0f} s, {rate:.1f} cases a second")
    lines += [f"completed after all had ended: {key}" for key in report.changed]
    lines += [f"not covered: {what}" for what in report.uncovered]
    for outcome, simple in report.bad:
        lines += ["", str(outcome)]
        if simple:
            lines.append(f"  simplest: TRUTH_CASE='{simple}' make truth")
    return "\n".join(lines)
