"""The EC2 handler: takes the Lambda function's JSON on a TCP port and runs the scripts here.

One connection is one event: JSON up to the end of the stream or up to `END`, answered with the
result as one line of JSON. Each connection has a thread of its own, each script a /tmp of its
own. A client that has left is no error; its scripts run to their end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType

import punchlib
from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.errors import PunchError, UsageError
from punchlib.node import sandbox
from punchlib.node.handling import ensure_engine, log, run_event, workdir
from punchlib.node.protocol import Event
from punchlib.node.script_runner import ScriptRunner

PORT = 9999
#: Bytes; a request is far smaller.
MAX_REQUEST = 1 << 20
#: Seconds for a client to send its request.
REQUEST_TIMEOUT = 30.0
#: Seconds that running scripts get to end when the handler is stopped.
STOP_GRACE = 5.0


def installation() -> tuple[str, ...]:
    """The folders that our tools need at run time, wherever they are installed, and PATH's."""
    package = Path(punchlib.__file__).resolve().parent.parent
    path = {Path(p) for p in os.environ.get("PATH", "").split(":")}
    folders = {Path(sys.prefix), Path(sys.base_prefix), package} | path
    return tuple(str(f) for f in folders if f.is_relative_to("/tmp") and f.is_dir())


def serve(
    host: str = "0.0.0.0",
    port: int = PORT,
    *,
    pashlib: Path | None = None,
    config: Config | None = None,
) -> int:
    """Serves until SIGTERM or SIGINT.

    Args:
        host: address to listen on.
        port: port to listen on.
        pashlib: file to show the scripts as /opt/pashlib; None where the machine has it.
        config: bucket and region; None reads the environment.

    Returns:
        The exit status: 128 + the signal that ended it.

    Raises:
        UsageError: the port is taken.
    """
    config = config or Config.from_env()
    try:
        listener = socket.create_server((host, port), backlog=1024)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            next_step="stop what listens there, or give another --port",
        ) from error
    ensure_engine()
    root = Path(tempfile.mkdtemp(prefix="punch-ec2-"))
    try:
        with listener:
            runner = ScriptRunner(
                # A connection for each script that runs here at once.
                client("s3", config, max_pool_connections=64),
                config,
                workdir(),
                _view(root, pashlib),
            )
            return _Server(listener, runner).run()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _view(root: Path, pashlib: Path | None) -> sandbox.View | None:
    refused = sandbox.refusal()
    if refused is None:
        return sandbox.View(
            tmp=str(root),
            keep=(*installation(), str(workdir())),
            pashlib=str(pashlib or ""),
            chdir=str(workdir()),
        )
    log(
        f"ec2-handler: {refused}: scripts share one /tmp, and one that uses the paths of a running"
        " one is refused; run as root or allow user namespaces for a private /tmp each"
    )
    return None


class _Server:
    def __init__(self, listener: socket.socket, runner: ScriptRunner) -> None:
        self._listener = listener
        self._runner = runner
        self._ended_by = 0
        self._threads: set[threading.Thread] = set()

    def run(self) -> int:
        # accept() is ended by a byte on this pair: a signal handler alone would only restart it.
        wake, woken = socket.socketpair()

        def stop(signum: int, _: FrameType | None) -> None:
            self._ended_by = self._ended_by or signum
            wake.send(b"!")

        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, stop)
        host, port = self._listener.getsockname()[:2]
        log(f"ec2-handler: listening on {host}:{port}")
        with wake, woken:
            self._accept(woken)
        self._runner.stop()
        deadline = time.monotonic() + STOP_GRACE
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))
        return 128 + self._ended_by

    def _accept(self, woken: socket.socket) -> None:
        import selectors

        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while not self._ended_by:
                selector.select()
                if self._ended_by:
                    return
                connection, address = self._listener.accept()
                thread = threading.Thread(
                    target=self._serve, args=(connection, address[0]), daemon=True
                )
                self._threads = {t for t in self._threads if t.is_alive()} | {thread}
                thread.start()

    def _serve(self, connection: socket.socket, peer: str) -> None:
        with connection:
            try:
                connection.settimeout(REQUEST_TIMEOUT)
                request = _request(connection)
                if request is None:
                    return
                event = Event.from_json(request)
            except (PunchError, OSError) as error:
                log(f"ec2-handler: {peer} sent no event: {error}")
                self._answer(connection, peer, {"v": 1, "ok": False, "error": str(error)})
                return
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            result = run_event(self._runner, event)
            self._answer(connection, peer, result.to_json())

    def _answer(self, connection: socket.socket, peer: str, answer: dict[str, object]) -> None:
        try:
            connection.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            log(f"ec2-handler: {peer} left before the answer")


def _request(connection: socket.socket) -> object:
    """Reads one request: up to the end of the stream or `END`; None from a mere probe.

    Raises:
        UsageError: it is too long, or no JSON.
        OSError: the connection broke.
    """
    data = bytearray()
    while not data.rstrip().endswith(b"END"):
        chunk = connection.recv(65536)
        if not chunk:
            break
        data += chunk
        if len(data) > MAX_REQUEST:
            raise UsageError(f"a request of more than {MAX_REQUEST} bytes")
    text = bytes(data).rstrip().removesuffix(b"END")
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the request is not JSON: {error}") from None
