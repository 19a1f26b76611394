"""`punch sh` on the embedded cloud at several widths, beside the same line in bash and beside S3.

    python -m bench.sh [--mb MB] [--widths N,N,…] [--json FILE]

Each row says how long the job took from the start of its nodes to the end of the last (the input
lies in S3 then), what bash took for the same line on a local file (GNU sort uses all processors by
itself), how many bytes the nodes sent to each other, and what the run would cost on AWS. The last
row of a pipeline takes every stream over S3. Outputs are compared. `plan` is the time of
`punch sh --explain`, from exec to exit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.jobs import manifest, storage
from punchlib.jobs.events import EventSink
from punchlib.jobs.runner import JobRunner, RunRequest
from punchlib.local.cloud import LocalCloud
from punchlib.runs import cost
from punchlib.sh import plan as planning
from punchlib.sh.emit import Emitter
from punchlib.sh.pieces import Input
from punchlib.sh.reading import read

PIPELINES = {
    "word frequency": r"cat $IN | tr -cs A-Za-z '\n' | tr A-Z a-z | sort | uniq -c | sort -rn",
    "sort": "sort $IN",
    "errors": r"grep -v the $IN | cut -d ' ' -f 1,2 | sort -u | wc -l",
}
MB = 10**6
_PUNCH = [sys.executable, "-m", "punchlib.cli.main"]


def make_input(path: Path, size: int) -> None:
    """Text with the words of a language: few are frequent, many are rare (Zipf's law)."""
    draw = random.Random(1)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 11))) for _ in range(30_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    block = draw.choices(words, weights, k=2_000_000)
    lines = [" ".join(block[i : i + 12]) for i in range(0, len(block), 12)]
    with path.open("wb") as file:
        while file.tell() < size:
            draw.shuffle(lines)
            file.write("".join(f"{line}\n" for line in lines)[: size - file.tell() - 1].encode())
            file.write(b"\n")


def bash(line: str, folder: Path) -> float:
    """Seconds of the line in one shell; what it prints is in `expected`."""
    began = time.monotonic()
    with (folder / "expected").open("wb") as out:
        subprocess.run(
            ["bash", "-c", line],
            env={**os.environ, "LC_ALL": "C", "IN": str(folder / "in")},
            stdout=out,
            check=True,
        )
    return time.monotonic() - began


def explain(line: str, folder: Path) -> float:
    """Seconds of `punch sh --explain`."""
    began = time.monotonic()
    subprocess.run(
        [*_PUNCH, "sh", "--explain", line],
        env={**os.environ, "IN": str(folder / "in")},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.monotonic() - began


class Bench:
    """The embedded cloud with the input in its bucket."""

    def __init__(self, cloud: LocalCloud, folder: Path) -> None:
        self._folder = folder
        self._launchers = cloud.launchers
        self._config = Config.from_env()
        self._s3 = client("s3", self._config)
        file = folder / "in"
        storage.upload(self._s3, self._config.bucket or "", "in", file)
        self._inputs = {str(file): Input("in", file.stat().st_size)}

    def run(self, line: str, width: int, *, detour: bool) -> dict[str, Any]:
        """Runs the line at a width: seconds, bytes between nodes, dollars."""
        plan = planning.make(read(line, {"IN": str(self._folder / "in")}))
        job = self._folder / f"job-{secrets.token_hex(4)}"
        Emitter(plan, width, self._inputs, "", job.name).write(job, line)
        env = {"PUNCH_ROUTES": "s3"} if detour else {}
        request = RunRequest(result=self._folder / "out", env=env)
        events = EventSink(lambda event: None)
        loaded = manifest.load(job)
        JobRunner(loaded, request, self._launchers, self._s3, self._config, events).run()
        same = ["cmp", "-s", str(self._folder / "out"), str(self._folder / "expected")]
        if subprocess.run(same, check=False).returncode:
            raise SystemExit(f"{line}: the result differs from what bash gives")
        moments = events.moments
        started = min(m.at for m in moments if m.event == "run.node_started")
        ended = max(m.at for m in moments if m.event == "run.node_ended")
        last_bytes = [m for m in moments if m.event == "stream.last_byte"]
        sent = [m for m in last_bytes if m.text("punch.direction") == "send"]
        return {
            "width": width,
            "job": ended - started,
            "sent": sum(m.number("punch.bytes") for m in sent),
            "dollars": cost.estimate(moments, cost.load_prices()).total,
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--mb", type=int, default=1000, help="of the input")
    parser.add_argument("--widths", default="1,2,4,8,16")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    widths = [int(w) for w in options.widths.split(",")]
    rows = []
    with ExitStack() as inside:
        name = inside.enter_context(tempfile.TemporaryDirectory(prefix="bench-sh-"))
        folder = Path(name)
        make_input(folder / "in", options.mb * MB)
        cloud = inside.enter_context(LocalCloud())
        bench = Bench(cloud, folder)
        print(f"{'':16} {'width':>8} {'job':>8} {'beside bash':>12} {'sent':>10} {'cost':>9}  plan")
        for what, line in PIPELINES.items():
            alone, plan = bash(line, folder), explain(line, folder)
            print(f"{what:16} {'bash':>8} {alone:6.1f} s {'':33}  {plan:.2f} s", flush=True)
            for number, width in enumerate([*widths, widths[-1]]):
                detour = number == len(widths)
                shown = f"{width}{', S3' if detour else ''}"
                row = bench.run(line, width, detour=detour)
                print(
                    f"{what:16} {shown:>8} {row['job']:6.1f} s {row['job'] / alone:10.2f} x"
                    f" {row['sent'] / MB:7.1f} MB {row['dollars']:9.6f}",
                    flush=True,
                )
                rows.append({"pipeline": what, "bash": alone, "plan": plan, **row, "shown": shown})
    if options.json:
        Path(options.json).write_text(json.dumps({"mb": options.mb, "runs": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
