"""FIFO → TCP → FIFO, beside a bare splice chain and socat, in one run: ratios, not absolute times.

    python bench/stream.py [--gib 4] [--rounds 3] [--streams 64] [--json FILE]

Every round runs every way once; a ratio is taken within its round, and the median is shown. All
ways have the same feeder, the same drain and pipes of the same size.

Through NATs: --send-prefix and --recv-prefix run each end elsewhere (`ip netns exec NAME`), and
--meet A,B names the addresses at which the sender and the receiver see each other; both then dial,
bound to the port, as two ends behind NATs that drop must.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.stream_end import write_terms

END = str(Path(__file__).with_name("stream_end.py"))
CHUNK = bytes(1 << 20)
_STAT = Path("/proc/stat")
#: Runs a foreign program and says of it what stream_end.py says of itself.
TIMED = """
import json, os, sys
pid = os.fork()
if not pid:
    os.execvp(sys.argv[1], sys.argv[1:])
_, status, used = os.wait4(pid, 0)
cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
print(json.dumps({"cpu": cpu, "peak_mb": peak, "streams": []}))
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass
class Result:
    """One run of one way. Seconds run from the first byte into the FIFOs to the last one out."""

    way: str
    size: int
    seconds: float
    send_cpu: float
    recv_cpu: float
    send_mb: float
    recv_mb: float
    fairness: float
    machine_cpu: float

    @property
    def rate(self) -> float:
        """GB/s."""
        return self.size / self.seconds / 1e9

    @property
    def cpu(self) -> float:
        """CPU seconds a GB of both ends."""
        return (self.send_cpu + self.recv_cpu) / self.size * 1e9

    @property
    def all_cpu(self) -> float:
        """CPU seconds a GB of the whole machine, feeder, drain and everybody else included."""
        return self.machine_cpu / self.size * 1e9


def start(*command: str) -> subprocess.Popen[str]:
    """Starts one end; its stdout is its report."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def feed(path: str, size: int, start: tuple[int, int]) -> int:
    """Forks a process that writes `size` bytes into a FIFO once the pipe `start` is closed."""
    if pid := os.fork():
        return pid
    try:
        os.close(start[1])
        fd = os.open(path, os.O_WRONLY)
        os.read(start[0], 1)
        view = memoryview(CHUNK)
        while size:
            size -= os.write(fd, view[: min(size, len(view))])
        os._exit(0)
    finally:
        os._exit(1)


def drain(path: str, size: int) -> int:
    """Forks a process that empties a FIFO; its status tells whether `size` bytes came."""
    if pid := os.fork():
        return pid
    try:
        fd, null = os.open(path, os.O_RDONLY), os.open("/dev/null", os.O_WRONLY)
        while moved := os.splice(fd, null, 1 << 20):
            size -= moved
        os._exit(0 if size == 0 else 1)
    finally:
        os._exit(1)


def machine_cpu() -> float:
    """CPU seconds that the machine has worked. What the kernel forwards between two ends is charged
    to whoever runs at that moment, often to neither.
    """
    user, nice, system, _idle, _wait, hard, soft, *_ = map(int, _STAT.read_text().split()[1:9])
    return (user + nice + system + hard + soft) / os.sysconf("SC_CLK_TCK")


class Bench:
    """Runs the ways, each on a free range of ports."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args = args
        self.folder = folder
        self._port = 12000 + os.getpid() % 16000  # below the ephemeral ports

    def run(self, way: str, size: int, streams: int = 1) -> Result:
        """One run: `size` bytes in all, over `streams` connections of one process at each end."""
        self._port += streams
        each = size // streams
        fifos = {
            role: [str(self.folder / f"{role}{number}") for number in range(streams)]
            for role in ("send", "recv")
        }
        for path in (*fifos["send"], *fifos["recv"]):
            os.mkfifo(path)
        try:
            ends = self._socat(fifos) if way == "socat" else self._ends(way, streams, fifos)
            pids = [drain(path, each) for path in fifos["recv"]]
            gate = os.pipe()
            pids += [feed(path, each, gate) for path in fifos["send"]]
            started, busy = time.monotonic(), machine_cpu()
            for fd in reversed(gate):
                os.close(fd)
            for pid in pids:
                _, status, _ = os.wait4(pid, 0)
                if status:
                    raise SystemExit(f"{way}: a feeder or drain failed: bytes are missing")
            seconds, busy = time.monotonic() - started, machine_cpu() - busy
            return self._result(way, each * streams, seconds, busy, ends)
        finally:
            for path in (*fifos["send"], *fifos["recv"]):
                os.unlink(path)  # noqa: PTH108

    def _ends(
        self, way: str, streams: int, fifos: dict[str, list[str]]
    ) -> list[subprocess.Popen[str]]:
        terms = self.folder / "terms"
        write_terms(terms, way, streams)
        port = self._port
        if self.args.meet:
            sender, receiver = self.args.meet.split(",")
            where = {
                "recv": ["--bind", f"0.0.0.0:{port}", "--peer", f"{sender}:{port}"],
                "send": ["--bind", f"0.0.0.0:{port}", "--peer", f"{receiver}:{port}"],
            }
        else:
            where = {
                "recv": ["--listen", f"127.0.0.1:{port}"],
                "send": ["--peer", f"127.0.0.1:{port}"],
            }
        prefix = {"recv": self.args.recv_prefix, "send": self.args.send_prefix}
        ends = [
            start(
                *shlex.split(prefix[role]),
                *(sys.executable, END, role, way, "--terms", str(terms)),
                *where[role],
                *fifos[role],
            )
            for role in ("recv", "send")
        ]
        for end in ends:
            assert end.stdout is not None
            end.stdout.readline()  # connected: imports are not measured
        return ends

    def _socat(self, fifos: dict[str, list[str]]) -> list[subprocess.Popen[str]]:
        timed = (sys.executable, "-c", TIMED, "socat", "-b", "1048576", "-u")
        listen = f"TCP-LISTEN:{self._port},bind=127.0.0.1,reuseaddr"
        recv = start(*timed, listen, f"OPEN:{fifos['recv'][0]},wronly")
        time.sleep(0.5)
        send = start(*timed, f"OPEN:{fifos['send'][0]},rdonly", f"TCP:127.0.0.1:{self._port}")
        time.sleep(0.5)
        return [recv, send]

    def _result(
        self, way: str, size: int, seconds: float, busy: float, ends: list[subprocess.Popen[str]]
    ) -> Result:
        said: list[dict[str, Any]] = []
        for end in ends:
            out, _ = end.communicate(timeout=60)
            if end.returncode:
                raise SystemExit(f"{way}: an end failed ({end.returncode}): {out}")
            said.append(json.loads(out))
        recv, send = said
        times = [one["seconds"] for one in recv["streams"]] or [1.0]
        return Result(
            way,
            size,
            seconds,
            send["cpu"],
            recv["cpu"],
            send["peak_mb"],
            recv["peak_mb"],
            min(times) / max(times),
            busy,
        )


def show(title: str, rounds: list[dict[str, Result]], yardstick: str) -> dict[str, Any]:
    """Prints one table and returns its figures."""
    print(f"\n{title}")
    print(
        f"{'':22}{'GB/s':>7}{'speed':>8}{'CPU':>7}{'all':>7}"
        "   CPU s/GB send + recv, all   MB send recv  fair"
    )
    figures: dict[str, Any] = {}
    for way in rounds[0]:
        runs = [one[way] for one in rounds]
        speed = statistics.median(one[way].rate / one[yardstick].rate for one in rounds)
        cpu = statistics.median(one[way].cpu / one[yardstick].cpu for one in rounds)
        everybody = statistics.median(one[way].all_cpu / one[yardstick].all_cpu for one in rounds)
        middle = sorted(runs, key=lambda run: run.rate)[len(runs) // 2]
        figures[way] = {
            "speed_ratio": round(speed, 3),
            "cpu_ratio": round(cpu, 3),
            "machine_cpu_ratio": round(everybody, 3),
            "gb_per_s": round(middle.rate, 3),
            "send_cpu_s_per_gb": round(middle.send_cpu / middle.size * 1e9, 3),
            "recv_cpu_s_per_gb": round(middle.recv_cpu / middle.size * 1e9, 3),
            "machine_cpu_s_per_gb": round(middle.all_cpu, 3),
            "send_peak_mb": round(max(run.send_mb for run in runs), 1),
            "recv_peak_mb": round(max(run.recv_mb for run in runs), 1),
            "fairness": round(statistics.median(run.fairness for run in runs), 3),
        }
        one = figures[way]
        print(
            f"{way:22}{one['gb_per_s']:7.2f}{speed:7.2f}×{cpu:6.2f}×{everybody:6.2f}×"
            f"{one['send_cpu_s_per_gb']:12.2f} + {one['recv_cpu_s_per_gb']:.2f}"
            f"{one['machine_cpu_s_per_gb']:7.2f}{one['send_peak_mb']:13.0f}{one['recv_peak_mb']:5.0f}{one['fairness']:7.2f}"
        )
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=4.0, help="payload of one run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--streams", type=int, default=64, help="width of the second table; 0: none"
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--send-prefix", default="", help="runs the sender's end elsewhere")
    parser.add_argument("--recv-prefix", default="", help="runs the receiver's end elsewhere")
    parser.add_argument("--meet", default="", help="SENDER,RECEIVER as each is seen by the other")
    args = parser.parse_args(argv)
    size = int(args.gib * (1 << 30))
    with tempfile.TemporaryDirectory(prefix="punch-bench-") as folder:
        bench = Bench(args, Path(folder))
        ways = ["bare", "authenticated", "encrypted"] + ([] if args.meet else ["socat"])
        single = [{way: bench.run(way, size) for way in ways} for _ in range(args.rounds)]
        figures = {"v": 1, "gib": args.gib, "one": show("One stream", single, "bare")}
        if args.streams:
            # The yardstick is one stream of the same kind in the same round.
            for way in ("authenticated", "encrypted"):
                name = f"{way} × {args.streams}"
                wide = [
                    {way: bench.run(way, size), name: bench.run(way, size, args.streams)}
                    for _ in range(args.rounds)
                ]
                figures[f"many {way}"] = show(f"{args.streams} streams, {way}", wide, way)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
