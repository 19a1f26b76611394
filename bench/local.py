"""How long `punch run --local` of the demo takes, phase by phase, from exec to exit.

    python -m bench.local [--rounds 7] [--json FILE]

Medians. The unit U, a bare `python3 -I -S -c pass`, is taken in the same rounds: on a busy
machine a time says little without it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.texts import english

ROOT = Path(__file__).resolve().parents[1]
JOB = ROOT / "examples" / "sort-width2"
INPUT = "oneliners/inputs/1M.txt"
OUTPUT = "oneliners/outputs/sort.sh:1M.txt:2:leashstdout.txt"
SIZE = 4_000_000
#: What the line that ends a phase holds.
PHASES = {
    "exec to the first line": "starting S3",
    "services up": "services are up",
    "input and scripts uploaded": "started 2 EC2",
    "nodes": "completed ",
    "result fetched": "the job went well",
}


def run(source: Path, result: Path) -> dict[str, float]:
    """One run: seconds for each phase, and for all."""
    command = [sys.executable, "-m", "punchlib.cli.main", "run", "--local", str(JOB)]
    began = last = time.monotonic()
    took: dict[str, float] = {}
    with subprocess.Popen(
        [*command, "--put", f"{INPUT}={source}", "--get", f"{OUTPUT}={result}"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stderr
        for line in process.stderr:
            for phase, mark in PHASES.items():
                if mark in line:
                    now = time.monotonic()
                    took[phase], last = now - last, now
    if process.returncode:
        raise SystemExit(f"the job failed with {process.returncode}")
    ended = time.monotonic()
    took["to the exit"] = ended - last
    took["all"] = ended - began
    return took


def unit() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rounds, units = [], []
    with tempfile.TemporaryDirectory(prefix="bench-local-") as folder:
        source, result = Path(folder, "in"), Path(folder, "out")
        source.write_bytes(english(SIZE, seed=1))
        expected = subprocess.run(
            ["sort", source], env={**os.environ, "LC_ALL": "C"}, stdout=subprocess.PIPE, check=True
        ).stdout
        for number in range(arguments.rounds + 1):
            took = run(source, result)
            assert result.read_bytes() == expected
            if number:  # the first one warms the caches
                rounds.append(took)
                units += [unit() for _ in range(3)]
    u = statistics.median(units)
    medians = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    print(f"U = {u * 1000:.1f} ms; {os.getloadavg()[0]:.0f} processes were running")
    for name, seconds in medians.items():
        fastest = min(r[name] for r in rounds)
        print(f"{name:28} {seconds:6.2f} s {seconds / u:7.0f} U   (fastest {fastest:.2f} s)")
    if arguments.json:
        report = {"v": 1, "unit_s": u, "medians_s": medians, "rounds": rounds}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
