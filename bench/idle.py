"""What it costs to wait: 200 `dgsh-tee` and 200 connections that have nothing to do.

    python -m bench.idle [--many 200] [--seconds 20] [--most 0.02] [--json FILE]

A third each of the `dgsh-tee` wait for input, for a reader, and for a reader that does not read; a
third each of the connections for a peer, for the receiver's FIFO to be opened, and for its reader
to read. All are on one machine with an engine; the local AWS API and STUN are not counted. Exits
with 1 where it takes more of one core than `--most`, or more than 10 reads of the store a second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.meter import Meter
from bench.startup import Forwarder
from punchlib.runtime import engine
from punchlib.runtime.layout import lay_out
from tests.support.coturn import coturn
from tests.support.ministack import start as start_ministack
from tests.support.wakeups import wakeups

MOST_READS = 10.0
#: Connections of one pashlib process.
GROUP = 4
#: Seconds for everything to connect, and to come to rest.
PATIENCE, SETTLE = 180.0, 8.0


class Waiters:
    """Starts processes and ends them.

    Args:
        folder: holds FIFOs, logs, and the tools below `top`.
        env: what they see.
    """

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._folder = folder
        self._env = env
        self._fifos = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        self._held: list[int] = []
        self._logs: list[Path] = []

    def fifo(self) -> str:
        self._fifos += 1
        path = self._folder / f"fifo{self._fifos}"
        os.mkfifo(path)
        return str(path)

    def start(self, *command: str) -> None:
        log = self._folder / f"log{len(self._processes)}"
        self._logs.append(log)
        with log.open("wb") as out:
            self._processes.append(
                subprocess.Popen(
                    command, env=self._env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
                )
            )

    def fill(self, fifo: str) -> None:
        """A writer that always has more."""
        self.start("sh", "-c", f"exec cat /dev/zero >{fifo}")

    def reader(self, fifo: str) -> None:
        """A reader that does not read."""
        self._held.append(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))

    def tees(self, many: int) -> None:
        tool = str(self._folder / "top/runtime/dgsh-tee")
        for n in range(many):
            source, target = self.fifo(), self.fifo()
            self.start(tool, "-I", "-i", source, "-o", target, "-b", "5M")
            if n % 3 == 1:
                self._held.append(os.open(source, os.O_RDWR))
                os.write(self._held[-1], b"x" * 1000)
            if n % 3 == 2:
                self.reader(target)

    def connections(self, many: int) -> int:
        """Returns how many ends have to connect."""
        pashlib = str(self._folder / "top/runtime/pashlib")
        ends = 0
        for first in range(0, many, GROUP):
            kind = first // GROUP % 3
            keys = [f"idle{n}" for n in range(first, min(first + GROUP, many))]
            outs = [self.fifo() for _ in keys]
            if kind == 2:
                for out in outs:
                    self.reader(out)
            self.start(pashlib, *(f"recv*{k}*1*0*{o}" for k, o in zip(keys, outs, strict=True)))
            if kind:
                sources = [self.fifo() for _ in keys]
                for source in sources:
                    self.fill(source)
                sent = zip(keys, sources, strict=True)
                self.start(pashlib, *(f"send*{k}*0*1*{s}" for k, s in sent))
                ends += 2 * len(keys)
        return ends

    def connected(self) -> int:
        return sum(log.read_bytes().count(b" connected route=") for log in self._logs)

    def ended(self) -> int:
        return sum(process.poll() is not None for process in self._processes)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        for fd in self._held:
            os.close(fd)


@contextlib.contextmanager
def world(folder: Path) -> Iterator[tuple[Forwarder, dict[str, str]]]:
    ministack, process = start_ministack(folder)
    try:
        with coturn(folder) as (host, port):
            forwarder = Forwarder(ministack.port)
            lay_out(folder / "top")
            yield (
                forwarder,
                ministack.env
                | {
                    "PATH": os.environ["PATH"],
                    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{forwarder.port}",
                    # Two addresses, as everywhere: a client learns what kind of NAT there is.
                    "PASH_STUN_SERVER": f"{host}:{port},127.0.0.2:{port}",
                    "PUNCH_STATE_DIR": str(folder / "state"),
                    "PUNCH_TIMEOUT": "600",
                },
            )
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--many", type=int, default=200)
    arguments.add_argument("--seconds", type=float, default=20.0)
    arguments.add_argument("--most", type=float, default=0.02, help="the share of a core")
    arguments.add_argument("--json", type=Path)
    args = arguments.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="punch-idle-", ignore_cleanup_errors=True) as name,
        world(Path(name)) as (forwarder, env),
        Meter() as meter,
        engine.spawn(env) as socket_name,
        contextlib.closing(Waiters(Path(name), env | {"PUNCH_ENGINE": socket_name})) as waiters,
    ):
        waiters.tees(args.many)
        ends = waiters.connections(args.many)
        deadline = time.monotonic() + PATIENCE
        while waiters.connected() < ends:
            if time.monotonic() > deadline:
                print(f"only {waiters.connected()} of {ends} ends have connected", file=sys.stderr)
                return 1
            time.sleep(0.5)
        time.sleep(SETTLE)
        cpu, woken, reads = used(meter), awake(meter), len(forwarder.answers)
        time.sleep(args.seconds)
        figures = {
            "many": args.many,
            "cpu_share": (used(meter) - cpu) / args.seconds,
            "wakeups_per_s": (awake(meter) - woken) / args.seconds,
            "reads_per_s": (len(forwarder.answers) - reads) / args.seconds,
            "memory_mb": meter.peak_mb,
            "ended": waiters.ended(),
        }
    print(
        f"{args.many} dgsh-tee and {args.many} connections that wait: {figures['cpu_share']:.2%} of"
        f" one core, {figures['wakeups_per_s']:.0f} wake-ups and {figures['reads_per_s']:.1f} reads"
        f" of the store a second, {figures['memory_mb']:.0f} MB"
    )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    if figures["ended"]:
        print(f"{figures['ended']} of them have ended", file=sys.stderr)
    too_much = figures["cpu_share"] > args.most or figures["reads_per_s"] > MOST_READS
    return int(bool(too_much or figures["ended"]))


def used(meter: Meter) -> float:
    """Processor time so far, in seconds, of all but ourselves, who forward the reads."""
    return meter.cpu() - time.process_time()


def awake(meter: Meter) -> int:
    """Wake-ups so far, of all but ourselves."""
    return sum(wakeups(pid) for pid in meter.members() if pid != os.getpid())


if __name__ == "__main__":
    sys.exit(main())
