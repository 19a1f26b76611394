"""Many connections in one process against as many in another, over the local AWS API.

    python -m bench.many [--connections 256] [--json FILE]

The second process starts when the first has registered everything. The figures: seconds from its
last registration to the last connection's being up, each process's memory, AWS calls.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from punchlib import wiring
from punchlib.config import Config
from punchlib.net.connection import Spec
from punchlib.rendezvous.dynamodb import DynamoDbStore
from tests.support.coturn import coturn
from tests.support.ministack import start as start_ministack


async def end(sending: bool, count: int) -> dict[str, float]:
    """One process: all connections at once; says when it has registered, waits for `go`."""
    config = Config.from_env()
    store = DynamoDbStore(lambda: wiring.dynamodb_client(config))
    registered = 0
    last_registered = 0.0
    register = store.register

    async def counted(*args: object, **kw: object) -> object:
        nonlocal registered, last_registered
        answer = await register(*args, **kw)  # type: ignore[arg-type]
        registered += 1
        last_registered = time.monotonic()
        if registered == count:
            print("registered", flush=True)
        return answer

    store.register = counted  # type: ignore[method-assign,assignment]
    connector = wiring.open_connector(config, store=store)
    me, peer = ("0", "1") if sending else ("1", "0")
    specs = [Spec(f"many-{n}", me, peer, sending) for n in range(count)]
    up = await asyncio.gather(*(connector.establish(spec) for spec in specs))
    last_up = time.monotonic()
    for connection in up:
        connection.close()
        await connection.forget()
    await connector.close()
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    return {
        "last_registered": last_registered,
        "last_up": last_up,
        "peak_mb": peak,
        "calls": store.calls,
        "attempts": max(c.attempt for c in up),
    }


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--connections", type=int, default=256)
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--end", choices=["send", "recv"], help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.end:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            print(json.dumps(runner.run(end(args.end == "send", args.connections))))
        return 0
    with tempfile.TemporaryDirectory(prefix="punch-many-") as name, contextlib.ExitStack() as stack:
        ministack, process = start_ministack(Path(name))
        stack.callback(process.wait)
        stack.callback(process.terminate)
        host, port = stack.enter_context(coturn(Path(name)))
        env = os.environ | ministack.env | {"PASH_STUN_SERVER": f"{host}:{port}"}
        command = [sys.executable, "-m", "bench.many", "--connections", str(args.connections)]

        def begin(which: str) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [*command, "--end", which], env=env, stdout=subprocess.PIPE, text=True
            )

        first = begin("send")
        assert first.stdout is not None
        first.stdout.readline()
        second = begin("recv")
        ends = [json.loads(p.communicate(timeout=120)[0].splitlines()[-1]) for p in (first, second)]
    registered = max(e["last_registered"] for e in ends)
    figures = {
        "seconds": max(e["last_up"] for e in ends) - registered,
        "peak_mb": [e["peak_mb"] for e in ends],
        "calls_per_connection": [e["calls"] / args.connections for e in ends],
        "attempts": max(e["attempts"] for e in ends),
    }
    print(f"{args.connections} connections: all up {figures['seconds']:.2f} s after the last one")
    print("  registered; peak memory " + " / ".join(f"{mb:.0f} MB" for mb in figures["peak_mb"]))
    calls = " / ".join(f"{n:.2f}" for n in figures["calls_per_connection"])
    print(f"  AWS calls for each connection, shared polls included: {calls}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
