"""The example job from the command line, phase by phase, beside the S3 route and `sort` alone.

    python -m bench.job [--sizes MB,MB,…] [--json FILE]

Phases come from the run's own events: prepare (the local services), put (input and scripts), start
(until the last node has its script running), first byte (until the merger's first byte), job (until
the last node has ended), complete, get; the overhead is what the process takes beyond their sum.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from punchlib.runs import run_folder, timeline
from punchlib.runs.timeline import Moment

JOB = Path("examples/sort-width2")
INPUT = "oneliners/inputs/1M.txt"
OUTPUT = "oneliners/outputs/sort.sh:1M.txt:2:leashstdout.txt"
PHASES = ("prepare", "put", "start", "first byte", "job", "complete", "get", "overhead")
MB = 10**6


def make_input(path: Path, size: int) -> None:
    """Text of about so many bytes, whose lines are out of order."""
    block = os.urandom(3 << 20).hex()
    lines = "".join(f"{block[i : i + 40]}\n" for i in range(0, len(block) - 40, 40)).encode()
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(lines[: size - file.tell()])


def phases(moments: list[Moment], wall: float) -> dict[str, float]:
    """Seconds of each phase of a run that went well."""

    def when(event: str, text: str = "", *, last: bool = False) -> float:
        found = [m.at for m in moments if m.event == event and text in m.text("punch.text")]
        return max(found) if last else min(found)

    ready = when("run.step", "services are up")
    started = when("run.node_started")
    running = when("script.started", last=True)
    merger = [m.at for m in moments if m.event == "stream.first_byte" and m.node == "merger"]
    ended = when("run.node_ended", last=True)
    completed = when("run.step", "completed", last=True)
    got = when("run.step", "got", last=True)
    out = {
        "prepare": ready,
        "put": started - ready,
        "start": running - started,
        "first byte": min(merger) - started,
        "job": ended - started,
        "complete": completed - ended,
        "get": got - completed,
    }
    # Start and first byte are within the job.
    out["overhead"] = wall - sum(out[p] for p in ("prepare", "put", "job", "complete", "get"))
    return out


def run(folder: Path, *options: str) -> dict[str, float]:
    """Runs the job as a user does."""
    command = [sys.executable, "-m", "punchlib.cli.main", "run", "--local", str(JOB)]
    began = time.monotonic()
    subprocess.run(
        [
            *(*command, *options, "--put", f"{INPUT}={folder / 'in'}"),
            *("--get", f"{OUTPUT}={folder / 'out'}"),
        ],
        env={**os.environ, "XDG_STATE_HOME": str(folder)},
        check=True,
        stderr=subprocess.DEVNULL,
    )
    wall = time.monotonic() - began
    os.environ["XDG_STATE_HOME"] = str(folder)
    lines = run_folder.load_lines(run_folder.find())
    return phases(timeline.read(lines), wall)


def sort_alone(folder: Path) -> float:
    """Seconds of `sort` on the same machine, with all its processors."""
    began = time.monotonic()
    subprocess.run(
        ["sort", str(folder / "in"), "-o", str(folder / "expected")],
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        check=True,
    )
    took = time.monotonic() - began
    if (folder / "expected").read_bytes() != (folder / "out").read_bytes():
        raise SystemExit("the result differs from what sort gives")
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sizes", default="1,100", help="of the input, in MB")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    rows = []
    print("   MB  route   " + "".join(f"{p:>11}" for p in PHASES) + "       sum  sort alone")
    for size in [int(s) for s in options.sizes.split(",")]:
        with tempfile.TemporaryDirectory(prefix="bench-job-") as name:
            folder = Path(name)
            make_input(folder / "in", size * MB)
            for route in ("direct", "s3"):
                found = run(folder, *(["--route", "s3"] if route == "s3" else []))
                alone = sort_alone(folder)
                within = ("start", "first byte")
                total = sum(v for p, v in found.items() if p not in within)
                cells = "".join(f"{found[p]:9.2f} s" for p in PHASES)
                print(f"{size:5}  {route:6}  {cells} {total:7.2f} s {alone:9.2f} s", flush=True)
                rows.append({"mb": size, "route": route, "sort_alone": alone, **found})
    if options.json:
        Path(options.json).write_text(json.dumps({"runs": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
