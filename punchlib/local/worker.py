"""One Lambda worker of the local mode: a real one, less the 0.4 s of imports that it needs.

A worker is AWS's runtime interface emulator and awslambdaric around our handler, in a sandbox.
The emulator wants to start the runtime itself. Here the runtime is a fork of `punchlib.local.host`,
which has imported everything, and the emulator starts a stand-in: a shell that tells our runtime
when to begin, and that ends when the runtime ends, so that the emulator sees a crash as it would.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from punchlib.node import sandbox

#: Seconds for the emulator to open its API once it has started a runtime.
_API_TIME = 10.0
#: awslambdaric's native part.
_NATIVE = "runtime_client"


@dataclass(frozen=True)
class Worker:
    """What a worker is made of.

    Attributes:
        address: its own loopback address; it listens on ports 8080 (invocations) and 9001.
        log: file for its output; "" for our own stderr.
        emulator: AWS's runtime interface emulator.
        view: what it sees.
        env: what it has in its environment beyond the host's.
    """

    address: str
    log: str
    emulator: str
    view: sandbox.View
    env: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "view": vars(self.view)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Worker:
        return cls(**{**data, "view": sandbox.View(**data["view"])})


def import_runtime() -> None:
    """Imports awslambdaric, for the forks to share, without its native part.

    That reads AWS_LAMBDA_RUNTIME_API, which is another for each worker, when it is loaded.
    """
    sys.modules[_NATIVE] = None  # type: ignore[assignment]  # an ImportError, which it provides for
    try:
        import awslambdaric.bootstrap  # noqa: F401
    finally:
        del sys.modules[_NATIVE]


def run(worker: Worker) -> int:
    """The worker's first process, a fork of the host."""
    os.environ.update(worker.env)
    return sandbox.confine(worker.view, lambda: _runtime(worker))


def _runtime(worker: Worker) -> int:
    """Inside of the sandbox: the emulator, and the runtime beside it."""
    begin, end = Path("/tmp/.punch-begin"), Path("/tmp/.punch-end")
    for path in (begin, end):
        os.mkfifo(path)
    # Open for reading as well, or it would wait here. It closes when this process ends.
    os.open(end, os.O_RDWR)
    api = f"{worker.address}:9001"
    subprocess.Popen(
        [
            *(worker.emulator, "--log-level", "error", "--runtime-api-address", api),
            *("--runtime-interface-emulator-address", f"{worker.address}:8080"),
            *("/bin/sh", "-c", f": >{begin}; read -r _ <{end}"),
        ],
        stdin=subprocess.DEVNULL,
    )
    os.environ["AWS_LAMBDA_RUNTIME_API"] = api
    from awslambdaric import bootstrap, lambda_runtime_client

    importlib.reload(lambda_runtime_client)  # now with its native part
    begin.read_bytes()  # until the first invocation
    _wait_for(worker.address, 9001)
    client = lambda_runtime_client.LambdaRuntimeClient(api, False)
    bootstrap.run("punchlib.node.lambda_handler.handler", client)
    return 0


def _wait_for(address: str, port: int) -> None:
    """Until the emulator's API listens; a runtime that had to start would never come too early."""
    deadline = time.monotonic() + _API_TIME
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1.0):
            return
        time.sleep(0.002)
