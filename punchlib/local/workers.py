"""Lambda on loopback: each invocation gets a fresh worker, as a first burst on AWS does."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import select
import shutil
import socket
import threading
import time
from pathlib import Path

from punchlib.jobs.launch import READ_TIMEOUT, NodeLost, read_answer
from punchlib.local.host import Host
from punchlib.local.worker import Worker
from punchlib.node import sandbox
from punchlib.node.protocol import Event, Result

MEMORY_MB = 1769
TIMEOUT = 900
#: Seconds for a worker's emulator to listen.
START_TIMEOUT = 30.0
#: Workers that start at once, for each core. More of them would all be ready later: of the nodes
#: of a wide job, which all run at once in the end, none would have what it takes to meet another.
STARTS_PER_CORE = 2
_PATH = "/2015-03-31/functions/function/invocations"


class LocalLambda:
    """Runs events, each in a worker of its own, started when the event comes.

    Args:
        host: starts the workers.
        root: folder for their /tmps and logs.
        emulator: AWS's runtime interface emulator.
        view: what each sees, but for its /tmp.
        verbose: pass the workers' logs on to stderr.
    """

    def __init__(
        self, host: Host, root: Path, emulator: Path, view: sandbox.View, *, verbose: bool = False
    ) -> None:
        self._host = host
        self._root = root
        self._emulator = emulator
        self._view = view
        self._verbose = verbose
        self._env = {
            "TMPDIR": "/tmp",
            "LEASH_ON_LAMBDA": "1",
            "AWS_LAMBDA_FUNCTION_NAME": "lambda",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(TIMEOUT),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEMORY_MB),
            "LAMBDA_TASK_ROOT": view.chdir,
        }
        # Workers of two runs on one machine must not meet either.
        self._net = f"127.{secrets.randbelow(254) + 1}"
        self._lock = threading.Lock()
        self._next = 0
        self._running: set[str] = set()
        self._starting = threading.BoundedSemaphore(STARTS_PER_CORE * (os.cpu_count() or 1))

    def run(self, event: Event) -> Result:
        with self._lock:
            self._next += 1
            high, low = divmod(self._next, 250)
        address = f"{self._net}.{high % 256}.{low + 1}"
        folder = self._root / address
        (folder / "tmp").mkdir(parents=True)
        log = folder / "log"
        worker = Worker(
            address,
            "" if self._verbose else str(log),
            str(self._emulator),
            self._view.with_tmp(str(folder / "tmp")),
            self._env,
        )
        with self._starting:
            alive = self._host.start(worker)
            self._running.add(address)
            listens = _wait_for(address, alive)
        try:
            if not listens:
                raise NodeLost("the worker did not start", may_pass=True)
            return read_answer(_invoke(address, event))
        except NodeLost as lost:
            lost.log_tail = _tail(log)
            raise
        finally:
            self._running.discard(address)
            self._host.kill(address)
            alive.recv(1)  # until the last process of the worker is dead
            alive.close()
            shutil.rmtree(folder, ignore_errors=True)

    def stop(self) -> None:
        """Kills all workers; whatever they run goes with them."""
        for address in list(self._running):
            self._host.kill(address)


def _invoke(address: str, event: Event) -> bytes:
    connection = http.client.HTTPConnection(address, 8080, timeout=READ_TIMEOUT)
    with contextlib.closing(connection):
        try:
            connection.request("POST", _PATH, body=json.dumps(event.to_json()))
            return connection.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            raise NodeLost(
                f"the worker died before it gave a result: {error}", may_pass=True
            ) from error


def _wait_for(address: str, alive: socket.socket) -> bool:
    """Waits until the worker listens; False when it has ended, or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT
    pause = 0.002
    while True:
        with contextlib.suppress(OSError), socket.create_connection((address, 8080), 1.0):
            return True
        # Readable means ended: nobody ever writes.
        if select.select([alive], [], [], pause)[0] or time.monotonic() > deadline:
            return False
        pause = min(pause * 1.2, 0.25)


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return log.read_bytes()[-4096:].decode(errors="replace")
    return ""
