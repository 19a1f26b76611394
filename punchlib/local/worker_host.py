"""Forks Lambda workers for the local mode: real ones, less the 0.4 s of imports that each needs.

    python -m punchlib.local.worker_host FD       FD: a Unix datagram socket with requests

A worker is AWS's runtime interface emulator and awslambdaric around our handler, in a sandbox.
The emulator wants to start the runtime itself. Here the runtime is a fork of this process, which
has imported everything, and the emulator starts a stand-in: a shell that tells our runtime when
to begin, and that ends when the runtime ends, so that the emulator sees a crash as it would.

Requests are JSON: `{"start": {…}}` with the fields of `Worker`, or `{"kill": ADDRESS}`. A worker
holds the descriptor that comes with its request: who waits for the worker's end holds the other.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from punchlib.node import sandbox

_MAX_REQUEST = 65536
#: Seconds for the emulator to open its API once it has started a runtime.
_API_TIME = 10.0


@dataclass(frozen=True)
class Worker:
    """One worker.

    Attributes:
        address: its own loopback address; it listens on ports 8080 (invocations) and 9001.
        log: file for its output; "" for our own stderr.
        emulator: AWS's runtime interface emulator.
        view: what it sees.
    """

    address: str
    log: str
    emulator: str
    view: sandbox.View

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "view": vars(self.view)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Worker:
        return cls(**{**data, "view": sandbox.View(**data["view"])})


class WorkerHost:
    """The runner's end: starts and kills workers. Make it in the main thread.

    Args:
        env: the workers' environment.
    """

    def __init__(self, env: dict[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-P", "-m", "punchlib.local.worker_host", str(number)]
            self._process = subprocess.Popen(
                sandbox.command(command),
                env=env,
                stdin=subprocess.DEVNULL,
                pass_fds=[number],
                start_new_session=True,
            )

    def start(self, worker: Worker) -> socket.socket:
        """Starts a worker; the socket that comes back reads as ended when the worker has."""
        ours, theirs = socket.socketpair()
        with theirs:
            text = json.dumps({"start": worker.to_json()}).encode()
            socket.send_fds(self._socket, [text], [theirs.fileno()])
        return ours

    def kill(self, address: str) -> None:
        """Kills a worker and all that it started."""
        with contextlib.suppress(OSError):  # the host has ended, and with it the worker
            self._socket.send(json.dumps({"kill": address}).encode())

    def close(self) -> None:
        """Ends the host and every worker."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def serve(requests: socket.socket) -> None:
    """Answers requests until the other end closes."""
    # Imported here, in the parent: the workers share it. Not awslambdaric: its native part reads
    # AWS_LAMBDA_RUNTIME_API, which differs, when it is loaded; and it is small.
    import punchlib.node.lambda_handler  # noqa: F401

    gc.collect()
    gc.freeze()  # what is shared stays shared
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    workers: dict[str, int] = {}
    while True:
        text, fds, _, _ = socket.recv_fds(requests, _MAX_REQUEST, 1)
        if not text:
            return
        request = json.loads(text)
        if "kill" in request:
            with contextlib.suppress(KeyError, ProcessLookupError):
                os.kill(workers.pop(request["kill"]), signal.SIGKILL)
            continue
        worker = Worker.from_json(request["start"])
        pid = os.fork()
        if pid == 0:
            requests.close()
            _run(worker)
        workers[worker.address] = pid
        for fd in fds:
            os.close(fd)


def _run(worker: Worker) -> None:
    """The worker's first process; never returns."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if worker.log:
            log = os.open(worker.log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
        code = sandbox.confine(worker.view, lambda: _runtime(worker))
    finally:
        os._exit(code)


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
    from awslambdaric import bootstrap
    from awslambdaric.lambda_runtime_client import LambdaRuntimeClient

    begin.read_bytes()  # until the first invocation
    _wait_for(worker.address, 9001)
    bootstrap.run("punchlib.node.lambda_handler.handler", LambdaRuntimeClient(api, False))
    return 0


def _wait_for(address: str, port: int) -> None:
    """Until the emulator's API listens; a runtime that had to start would never come too early."""
    deadline = time.monotonic() + _API_TIME
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1.0):
            return
        time.sleep(0.005)


def main() -> int:
    """`python -m punchlib.local.worker_host FD`."""
    serve(socket.socket(fileno=int(sys.argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
