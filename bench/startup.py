"""How long `pashlib` takes from exec to registered and to the first payload byte, on loopback.

    python -m bench.startup [--rounds 50] [--json FILE]

The unit is U, a bare `python3 -I -S -c pass`, taken in the same rounds: seconds mean little on a
shared machine. A forwarder in front of the local AWS API sees when the answer to the registration
passes. "First byte" is timed with the peer registered and its FIFO open.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from punchlib.runtime import engine
from punchlib.runtime.layout import write_pashlib
from tests.support.coturn import coturn
from tests.support.ministack import start as start_ministack


class Forwarder:
    """A TCP forwarder that notes when the latest answer passed."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self.answers: list[float] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._listener, selectors.EVENT_READ, None)
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    caller, _ = self._listener.accept()
                    try:
                        server = socket.create_connection(("127.0.0.1", self._target))
                    except OSError:  # it is over: so it is for the caller
                        caller.close()
                        continue
                    for sock in (caller, server):
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(caller, selectors.EVENT_READ, (server, False))
                    selector.register(server, selectors.EVENT_READ, (caller, True))
                    continue
                assert isinstance(key.fileobj, socket.socket)
                sock = key.fileobj
                other, answer = key.data
                with contextlib.suppress(OSError):
                    data = sock.recv(65536)
                    if data:
                        other.sendall(data)
                        if answer and data.startswith(b"HTTP/"):
                            self.answers.append(time.monotonic())
                        continue
                for end in (sock, other):
                    with contextlib.suppress(KeyError, ValueError):
                        selector.unregister(end)
                    end.close()


def bare() -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
    return time.monotonic() - started


def registered(pashlib: Path, env: dict[str, str], forwarder: Forwarder, n: int) -> float:
    """Exec to registered: nobody is there, so the first answer is the registration's."""
    forwarder.answers.clear()
    # It is stopped in the end, and leaves a failure marker: in a folder of its own.
    env = env | {"PUNCH_STATE_DIR": f"{env['PUNCH_STATE_DIR']}-stopped"}
    started = time.monotonic()
    process = subprocess.Popen([pashlib, f"send*r{n}*0*1*idle"], env=env, cwd=pashlib.parent)
    while not forwarder.answers:
        time.sleep(0.0005)
    taken = forwarder.answers[0] - started
    process.terminate()
    process.wait()
    return taken


def first_byte(pashlib: Path, env: dict[str, str], n: int) -> float:
    """Exec of the receiver to its first byte, with the sender registered for half a second."""
    folder = pashlib.parent
    feeder = subprocess.Popen(["bash", "-c", "echo hello > in"], cwd=folder)
    sender = subprocess.Popen([pashlib, f"send*f{n}*0*1*in"], env=env, cwd=folder)
    time.sleep(0.8)
    fd = os.open(folder / "out", os.O_RDONLY | os.O_NONBLOCK)
    poll = selectors.DefaultSelector()
    poll.register(fd, selectors.EVENT_READ)
    started = time.monotonic()
    receiver = subprocess.Popen([pashlib, f"recv*f{n}*1*0*out"], env=env, cwd=folder)
    poll.select()
    taken = time.monotonic() - started
    assert os.read(fd, 100) == b"hello\n"
    os.close(fd)
    for process in (receiver, sender, feeder):
        if process.wait(30):
            raise SystemExit(f"{process.args!r} failed")
    return taken


@contextlib.contextmanager
def world(folder: Path) -> Iterator[tuple[Path, dict[str, str], Forwarder]]:
    ministack, process = start_ministack(folder)
    try:
        with coturn(folder) as (host, port):
            forwarder = Forwarder(ministack.port)
            for fifo in ("in", "out", "idle"):
                os.mkfifo(folder / fifo)
            write_pashlib(folder / "pashlib")
            env = ministack.env | {
                "PATH": os.environ["PATH"],
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{forwarder.port}",
                "PASH_STUN_SERVER": f"{host}:{port}",
                "PUNCH_STATE_DIR": str(folder / "state"),
            }
            yield folder / "pashlib", env, forwarder
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--rounds", type=int, default=50)
    arguments.add_argument("--json", type=Path)
    args = arguments.parse_args()
    times: dict[str, list[float]] = {}

    def note(name: str, taken: float) -> None:
        times.setdefault(name, []).append(taken)

    with (
        tempfile.TemporaryDirectory(prefix="punch-startup-") as name,
        world(Path(name)) as (pashlib, env, forwarder),
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stderr(nowhere),
    ):
        with engine.spawn(env) as socket_name:
            with_engine = env | {"PUNCH_ENGINE": socket_name}
            registered(pashlib, with_engine, forwarder, -1)  # makes the table, warms the engine
            for n in range(args.rounds):
                note("U", bare())
                note("registered", registered(pashlib, with_engine, forwarder, n))
                note("first byte", first_byte(pashlib, with_engine, n))
        for n in range(max(args.rounds // 5, 1)):
            without = 10_000 + n
            note("registered, no engine", registered(pashlib, env, forwarder, without))
            note("first byte, no engine", first_byte(pashlib, env, without))
    unit = statistics.median(times["U"])
    figures = {"U_ms": unit * 1000} | {
        name: statistics.median(values) / unit for name, values in times.items() if name != "U"
    }
    print(f"U = {unit * 1000:.1f} ms (bare python3 -I -S -c pass)")
    for what, ratio in list(figures.items())[1:]:
        print(f"  exec → {what:24} {ratio:6.1f} U   (p50 of {len(times[what])})")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
