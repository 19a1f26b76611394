"""What a cold Lambda worker takes from exec to its first registered stream, in the image.

    python -m bench.cold [--image punch-lambda:local] [--rounds 5] [--json FILE]

The container has one processor, 1,769 MB, a root that cannot be written to, and a runtime API that
is served here. Processor time is that of its control group: all processes, the kernel's part too.
Beside it the same container with a handler that does nothing: what awslambdaric takes by itself.

import       exec to the handler's first question for an event
registered   exec, or for the second event its arrival, to the registration's answer
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.meter import group_cpu
from bench.startup import Forwarder
from tests.support.coturn import coturn
from tests.support.ministack import MiniStack
from tests.support.ministack import start as start_ministack
from tests.support.runtime_api import RuntimeApi

BUCKET, MEMORY = "bench", "1769m"
#: Seconds for which a script waits for its peer, who never comes.
EACH = 4.0
SCRIPT = "mkfifo $TMPDIR/a; cat $TMPDIR/a >/dev/null & /opt/pashlib recv*{key}*1*0*$TMPDIR/a\n"
BARE = "def handler(event, context):\n    return None\n"


class Container:
    """A worker of the image; its clocks start when it does."""

    def __init__(self, image: str, env: dict[str, str], handler: str, *mounts: str) -> None:
        variables = [part for name, value in env.items() for part in ("-e", f"{name}={value}")]
        volumes = [part for mount in mounts for part in ("-v", mount)]
        command = ["docker", "create", "--network", "host", "--cpuset-cpus", "0", "-m", MEMORY]
        command += ["--read-only", "--tmpfs", "/tmp:exec", *variables, *volumes, image, handler]
        self.id = _said(*command)
        self._started = time.monotonic()
        _said("docker", "start", self.id)
        self._cpu = group_cpu(int(_said("docker", "inspect", "-f", "{{.State.Pid}}", self.id)))

    def clocks(self) -> tuple[float, float]:
        """Milliseconds of processor time, and of ours, since it began."""
        return self._cpu() * 1000, (time.monotonic() - self._started) * 1000

    def close(self) -> None:
        subprocess.run(["docker", "rm", "-f", self.id], capture_output=True, check=False)


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def worker(
    image: str, env: dict[str, str], handler: str, *mounts: str
) -> Iterator[tuple[RuntimeApi, Container]]:
    api = RuntimeApi()
    with contextlib.closing(api):
        more = {"AWS_LAMBDA_RUNTIME_API": api.address, "AWS_LAMBDA_FUNCTION_NAME": "f"}
        container = Container(image, env | more, handler, *mounts)
        with contextlib.closing(container):
            _wait(api.asked.is_set)
            yield api, container


def _wait(what: Any) -> None:
    deadline = time.monotonic() + 120
    while not what():
        if time.monotonic() > deadline:
            raise SystemExit("the worker did not come so far: docker logs may say why")
        time.sleep(0.0005)


def bare(image: str, env: dict[str, str], folder: Path) -> dict[str, float]:
    (folder / "nothing.py").write_text(BARE)
    mount = f"{folder}/nothing.py:/var/task/nothing.py:ro"
    with worker(image, env, "nothing.handler", mount) as (_, container):
        cpu, wall = container.clocks()
    return {"bare cpu": cpu, "bare wall": wall}


def cold(
    image: str, env: dict[str, str], stack: MiniStack, forwarder: Forwarder
) -> dict[str, float]:
    found: dict[str, float] = {}
    with worker(image, env, "punchlib.node.lambda_handler.handler") as (api, container):
        found["import cpu"], found["import wall"] = container.clocks()
        for which in ("first", "second"):
            key, folder = uuid.uuid4().hex, uuid.uuid4().hex
            stack.client("s3").put_object(
                Bucket=BUCKET,
                Key=f"sls-scripts/{folder}/w.sh",
                Body=SCRIPT.format(key=key).encode(),
            )
            time.sleep(0 if which == "first" else 2.0)
            before = (0.0, 0.0) if which == "first" else container.clocks()
            forwarder.answers.clear()
            event = {"id": "w", "folder_id": folder, "timeout": EACH, "commit": "runner"}
            api.give(json.dumps(event).encode())
            _wait(lambda: len(forwarder.answers) >= 2)  # the script; the registration
            now = container.clocks()
            for name, at, since in zip(("cpu", "wall"), now, before, strict=True):
                found[f"{which} registered {name}"] = at - since
            _wait(lambda: bool(api.answers))
            _wait(api.asked.is_set)
    return found


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--image", default="punch-lambda:local")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--json", type=Path)
    args = arguments.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("a container's processor time is read from its control group: run as root")
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="punch-cold-") as name:
        folder = Path(name)
        stack, process = start_ministack(folder)
        try:
            with coturn(folder) as (host, port):
                forwarder = Forwarder(stack.port)
                stack.client("s3").create_bucket(Bucket=BUCKET)
                stack.client("dynamodb").create_table(
                    TableName="rdv",
                    AttributeDefinitions=[{"AttributeName": "key", "AttributeType": "S"}],
                    KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}],
                    BillingMode="PAY_PER_REQUEST",
                )
                env = {n: v for n, v in stack.env.items() if n.startswith("AWS_")} | {
                    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{forwarder.port}",
                    "AWS_BUCKET": BUCKET,
                    "PASH_STUN_SERVER": f"{host}:{port}",
                }
                for _ in range(args.rounds):
                    rounds.append(
                        bare(args.image, env, folder) | cold(args.image, env, stack, forwarder)
                    )
        finally:
            process.terminate()
            process.wait()
    figures = {n: statistics.median(r[n] for r in rounds) for n in rounds[0]}
    print(f"{args.image}: one processor, {MEMORY}, median of {args.rounds}; ms")
    print(f"{'':34}{'cpu':>8}{'wall':>8}")
    for what, prefix in (
        ("awslambdaric with an empty handler", "bare"),
        ("ours: exec → asks for an event", "import"),
        ("exec → first stream registered", "first registered"),
        ("second event → registered", "second registered"),
    ):
        print(f"{what:34}{figures[f'{prefix} cpu']:8.0f}{figures[f'{prefix} wall']:8.0f}")
    over = figures["first registered cpu"] - figures["bare cpu"]
    print(f"first registration over the bare runtime: {over:.0f} ms of processor time")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
