"""Lambda on loopback: each invocation gets a fresh worker, as a first burst on AWS does."""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from punchlib.aws import sandbox
from punchlib.aws.protocol import Event, Result
from punchlib.jobs.launch import READ_TIMEOUT, NodeLost, read_answer

MEMORY_MB = 1769
TIMEOUT = 900
#: Seconds for a worker's emulator to listen.
START_TIMEOUT = 30.0
_PATH = "/2015-03-31/functions/function/invocations"


@dataclass(frozen=True)
class Box:
    """Where workers live.

    Attributes:
        root: folder for their /tmps and logs.
        emulator: AWS's runtime interface emulator.
        keep: folders that stay visible if they lie below /tmp.
        pashlib: file to show as /opt/pashlib.
        top: the folder that holds runtime/ and aws/.
        verbose: pass the workers' logs on to stderr.
    """

    root: Path
    emulator: Path
    keep: tuple[Path, ...]
    pashlib: Path
    top: Path
    verbose: bool


class LocalLambda:
    """Runs events, each in a worker of its own, started when the event comes.

    Args:
        box: where.
        env: the workers' environment.
    """

    def __init__(self, box: Box, env: Mapping[str, str]) -> None:
        self._box = box
        self._env = {
            **env,
            "LEASH_ON_LAMBDA": "1",
            "AWS_LAMBDA_FUNCTION_NAME": "lambda",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(TIMEOUT),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEMORY_MB),
            "LAMBDA_TASK_ROOT": str(box.top),
        }
        # Workers of two runs on one machine must not meet either.
        self._net = f"127.{secrets.randbelow(254) + 1}.{secrets.randbelow(256)}"
        self._next = 0
        self._lock = threading.Lock()
        self._workers: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, event: Event) -> Result:
        with self._lock:
            self._next += 1
            number = self._next
        folder = self._box.root / str(number)
        tmp = folder / "tmp"
        tmp.mkdir(parents=True)
        log = folder / "log"
        worker = self._start(self._address(number), tmp, log)
        try:
            return read_answer(self._invoke(self._address(number), event, worker))
        except NodeLost as lost:
            raise NodeLost(lost.message, next_step=lost.next_step, log_tail=_tail(log)) from lost
        finally:
            worker.kill()
            worker.wait()
            with self._lock:
                self._workers.discard(worker)
            shutil.rmtree(folder, ignore_errors=True)

    def stop(self) -> None:
        """Kills all workers; whatever they run goes with them."""
        with self._lock:
            self._stopped = True
            for worker in self._workers:
                worker.kill()

    def _address(self, number: int) -> str:
        high, low = divmod(number, 250)
        net, _, last = self._net.rpartition(".")
        return f"{net}.{(int(last) + high) % 256}.{low + 1}"

    def _start(self, address: str, tmp: Path, log: Path) -> subprocess.Popen[bytes]:
        box = self._box
        emulator = [
            *(str(box.emulator), "--log-level", "error"),
            *("--runtime-interface-emulator-address", f"{address}:8080"),
            *("--runtime-api-address", f"{address}:9001"),
            *(sys.executable, "-m", "awslambdaric", "punchlib.aws.lambda_handler.handler"),
        ]
        command = sandbox.command(
            emulator, tmp=tmp, keep=box.keep, pashlib=box.pashlib, chdir=box.top
        )
        with log.open("wb") as file, self._lock:
            if self._stopped:
                raise NodeLost("the run was given up before the worker started")
            out = 2 if box.verbose else file
            worker = subprocess.Popen(
                command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
            self._workers.add(worker)
        return worker

    def _invoke(self, address: str, event: Event, worker: subprocess.Popen[bytes]) -> bytes:
        _wait_for(address, worker)
        connection = http.client.HTTPConnection(address, 8080, timeout=READ_TIMEOUT)
        with contextlib.closing(connection):
            try:
                connection.request("POST", _PATH, body=json.dumps(event.to_json()))
                return connection.getresponse().read()
            except (OSError, http.client.HTTPException) as error:
                raise NodeLost(f"the worker died before it gave a result: {error}") from error


def _wait_for(address: str, worker: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        with contextlib.suppress(OSError), socket.create_connection((address, 8080), 1.0):
            return
        if worker.poll() is not None or time.monotonic() > deadline:
            raise NodeLost("the worker did not start")
        time.sleep(0.02)


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return log.read_bytes()[-4096:].decode(errors="replace")
    return ""
