"""How fast the runtime tools are, beside `cat` and `aws s3 cp` in the same run.

    python -m bench.runtime [--json FILE] [--size MB] [--rounds N] [--hold GB] [--aws PATH]

Only ratios count: tool and yardstick take turns on the same machine. U is the time that a bare
`python3 -I -S -c pass` takes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from punchlib.runtime.layout import lay_out
from tests.support.ministack import MiniStack, start

MB, GB = 10**6, 10**9
LINE = 80


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--size", type=int, default=500, help="MB through each tool")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median counts")
    parser.add_argument("--hold", type=float, default=10.0, help="GB that dgsh-tee -I holds")
    parser.add_argument("--aws", default=shutil.which("aws"), help="the AWS command line tool")
    options = parser.parse_args()
    figures: dict[str, object] = {"v": 1}
    with tempfile.TemporaryDirectory(prefix="bench-runtime-") as name:
        folder = Path(name)
        lay_out(folder)
        os.environ["PUNCH_STATE_DIR"] = str(folder / "state")
        os.chdir(folder)
        figures["start"] = bench_start(4 * options.rounds)
        figures["throughput"] = bench_throughput(options.size * MB, options.rounds)
        figures["hold"] = bench_hold(int(options.hold * GB))
        figures["s3"] = bench_s3(options.aws, options.size // 2 * MB, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def bench_start(rounds: int) -> dict[str, float]:
    """Start and end of each tool on empty input, in U; the target is 4."""
    commands = {
        "U": f"{sys.executable} -I -S -c pass",
        "r_split": "runtime/r_split -r /dev/null 1000 /dev/null",
        "r_merge": "runtime/r_merge /dev/null",
        "r_unwrap": "runtime/r_unwrap < /dev/null",
        "r_wrap": "runtime/r_wrap cat < /dev/null",
        "dgsh-tee": "runtime/dgsh-tee -I -i /dev/null -o /dev/null",
        "split": "runtime/split /dev/null 1 /dev/null",
        "auto-split.sh": "runtime/auto-split.sh /dev/null /dev/null",
    }
    # sh replaces itself: one more exec for each, the yardstick included.
    times = taking_turns({n: partial(sh, f"exec {c}") for n, c in commands.items()}, rounds)
    unit = times.pop("U")
    print(f"\nstart (U = {unit * 1000:.1f} ms; target ≤4 U)")
    return {name: show(name, seconds / unit, "U") for name, seconds in times.items()}


def bench_throughput(size: int, rounds: int) -> dict[str, float]:
    """FIFO → tool → FIFO with lines of 80 bytes; the target is 1.0 of `cat`."""
    line = b"%078d\n"
    with open("text", "wb") as f:
        block = b"".join(line % n for n in range(100_000))
        for _ in range(-(-size // len(block))):
            f.write(block)
    sh("runtime/r_split text 1000000 /dev/stdout > framed")
    for fifo in ("in", "out", "out2"):
        os.mkfifo(fifo)
    drain, drain2 = "cat < out > /dev/null &", "cat < out2 > /dev/null &"
    split = f"{drain} {drain2} cat text > in & runtime/r_split"
    ways = {
        "cat": f"{drain} cat text > in & cat < in > out; wait",
        "r_split -r": f"{split} -r in 1000000 out out2; wait",
        "r_split": f"{split} in 1000000 out out2; wait",
        "r_merge": f"{drain} cat framed > in & runtime/r_merge in > out; wait",
        "r_unwrap": f"{drain} cat framed > in & runtime/r_unwrap < in > out; wait",
        "dgsh-tee": f"{drain} cat text > in & runtime/dgsh-tee -i in -o out -b 5M; wait",
        "dgsh-tee -I": f"{drain} cat text > in & runtime/dgsh-tee -i in -o out -I -b 5M; wait",
    }
    times = taking_turns({name: partial(sh, c) for name, c in ways.items()}, rounds)
    cat = times.pop("cat")
    print(f"\nthroughput (cat = {size / MB / cat:.0f} MB/s = 1.0×; target ≥1.0×)")
    return {name: show(name, cat / seconds, "×") for name, seconds in times.items()}


def bench_hold(size: int) -> dict[str, float]:
    """`dgsh-tee -I` whose reader takes nothing: how much memory it uses."""
    os.mkfifo("held")
    reader = os.open("held", os.O_RDWR)  # there is a reader, but it does not read
    command = ["runtime/dgsh-tee", "-I", "-i", "in", "-o", "held", "-T", "."]
    process = subprocess.Popen(command)
    began = time.monotonic()
    sh(f"head -c {size} /dev/zero > in")
    seconds = time.monotonic() - began
    process.kill()
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = -9
    os.close(reader)
    memory = usage.ru_maxrss * 1024 / MB
    print(f"\ndgsh-tee -I holds {size / GB:.1f} GB (target ≤400 MB of memory)")
    show("memory", memory, "MB")
    show("taken at", size / MB / seconds, "MB/s")
    return {"gb": size / GB, "memory_mb": memory, "mb_per_s": size / MB / seconds}


def bench_s3(aws: str | None, size: int, rounds: int) -> dict[str, float]:
    """s3-get and s3-put beside `aws s3 cp` on the local S3 API; the target is 0.9."""
    if not aws:
        print("\ns3: no `aws` here; pip install awscli, and say --aws PATH")
        return {}
    ministack, server = start(Path.cwd())
    try:
        return _bench_s3(aws, ministack, size, rounds)
    finally:
        server.terminate()
        server.wait()


def _bench_s3(aws: str, ministack: MiniStack, size: int, rounds: int) -> dict[str, float]:
    os.environ.update(ministack.env, AWS_BUCKET="bench")
    ministack.client("s3").create_bucket(Bucket="bench")
    sh(f"head -c {size} text > object")
    python = sys.executable
    ways = {
        "aws get": f"{aws} s3 cp --quiet s3://bench/k got",
        "aws put": f"{aws} s3 cp --quiet object s3://bench/k",
        "s3-put": f"{python} aws/s3-put-object.py k object",
        "s3-get": f"{python} aws/s3-get-object.py k got",
    }
    sh(ways["s3-put"])
    times = taking_turns({name: partial(sh, c) for name, c in ways.items()}, rounds)
    sh("cmp object got")
    print(f"\ns3, {size // MB} MB (aws s3 cp = 1.0×; target ≥0.9×, memory ≤128 MB)")
    figures = {}
    for tool, yardstick in (("s3-get", "aws get"), ("s3-put", "aws put")):
        figures[tool] = show(tool, times[yardstick] / times[tool], "×")
        process = subprocess.Popen(ways[tool].split())
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        figures[f"{tool}_memory_mb"] = show("memory", usage.ru_maxrss * 1024 / MB, "MB")
    return figures


def taking_turns(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Runs all, again and again in turn; the median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.monotonic()
            way()
            times[name].append(time.monotonic() - began)
    return {name: statistics.median(taken) for name, taken in times.items()}


def sh(command: str) -> None:
    subprocess.run(["sh", "-c", command], check=True)


def show(name: str, value: float, unit: str) -> float:
    print(f"  {name:<14}{value:8.2f} {unit}")
    return round(value, 3)


if __name__ == "__main__":
    main()
