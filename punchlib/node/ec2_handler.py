"""The EC2 handler: takes the Lambda function's JSON on a socket and runs the scripts here.

One connection is one event, answered with the result as one line of JSON (punchlib.node.door says
who may call). Each connection has a thread of its own, each script a /tmp of its own. When a job's
runner leaves, its scripts are stopped and their uploads aborted; the scripts of anybody else run
to their end.

Its own scripts call it as well (`invoke-lambda.py ID FOLDER ec2`), and know no token. They come by
a door of their own: an abstract Unix socket, named by PUNCH_NODE_DOOR, where the kernel says who
calls and no proxy of this machine stands in between.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import resource
import secrets
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import cast

import punchlib
from punchlib.aws import quick
from punchlib.config import Config
from punchlib.errors import PunchError, UsageError
from punchlib.node import sandbox, scratch
from punchlib.node.door import Visit
from punchlib.node.handling import answer_probe, ensure_engine, log, run_event, workdir
from punchlib.node.probe_event import Probe
from punchlib.node.protocol import Event
from punchlib.node.script_runner import ScriptRunner
from punchlib.runtime.handler_call import TOKEN_FILE, take_token, unix_address
from punchlib.runtime.invoke_lambda import NODE_DOOR

HOST = "127.0.0.1"
PORT = 9999
#: Callers whose request has not wholly come. One more, and the one that waits longest is let go.
MAX_WAITING = 64
#: Seconds that running scripts get to end when the handler is stopped.
STOP_GRACE = 5.0


def installation() -> tuple[str, ...]:
    """The folders that our tools need at run time, wherever they are installed, and PATH's."""
    package = Path(punchlib.__file__).resolve().parent.parent
    path = {Path(p) for p in os.environ.get("PATH", "").split(":")}
    folders = {Path(sys.prefix), Path(sys.base_prefix), package} | path
    return tuple(str(f) for f in folders if f.is_relative_to("/tmp") and f.is_dir())


def listen(host: str = HOST, port: int = PORT, *, unix: Path | None = None) -> socket.socket:
    """Opens the handler's door.

    Args:
        host: address to listen on.
        port: port to listen on.
        unix: path of a Unix socket, instead of both.

    Raises:
        UsageError: it is taken.
    """
    try:
        if unix is None:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, port), family=family, backlog=1024)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if unix.is_socket():
            unix.unlink()  # of a handler that was killed
        with unix_address(str(unix)) as address:
            listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {unix or f'{host}:{port}'}: {error.strerror or error}",
            next_step="stop what listens there, or listen elsewhere",
        ) from error
    return listener


def serve(
    listener: socket.socket,
    *,
    token: bytes | None = None,
    pashlib: Path | None = None,
    config: Config | None = None,
) -> int:
    """Serves until SIGTERM or SIGINT.

    Args:
        listener: from `listen`.
        token: what callers must know; None serves this user's own processes alone.
        pashlib: file to show the scripts as /opt/pashlib; None where the machine has it.
        config: bucket and region; None reads the environment.

    Returns:
        The exit status: 128 + the signal that ended it.
    """
    return _run(_Server(listener, token), pashlib, config or Config.from_env())


def _run(server: _Server, pashlib: Path | None, config: Config) -> int:
    with scratch.folder("punch-ec2") as root:
        runner = ScriptRunner(quick.client("s3", config), config, workdir(), _view(root, pashlib))
        return server.run(runner, config)


def main(host: str, port: int, *, unix: Path | None, pashlib: Path | None) -> int:
    """`punch ec2-handler`: listens, starts the node engine, serves.

    Raises:
        UsageError: it would listen to a network without a token, or cannot listen.
    """
    token = take_token()
    if token is None and unix is None and not _is_loopback(host):
        raise UsageError(
            f"listening on {host} lets anybody in the network run scripts here",
            next_step=f"set {TOKEN_FILE} (a file that holds the output of `openssl rand -hex 32`),"
            " or listen on 127.0.0.1",
        )
    config = Config.from_env()
    # From here on a signal ends it in order, also while it starts.
    server = _Server(listen(host, port, unix=unix), token)
    try:
        ensure_engine()
        return _run(server, pashlib, config)
    finally:
        if unix:
            unix.unlink(missing_ok=True)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
    def __init__(self, listener: socket.socket, token: bytes | None) -> None:
        self._listener = listener
        self._own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        #: What callers of each door must know.
        self._doors = {listener: token, self._own: None}
        self._ended_by = 0
        self._threads: set[threading.Thread] = set()
        self._waiting: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        # accept() is ended by a byte on this pair: a signal handler alone would only restart it.
        self._wake, self._woken = socket.socketpair()
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._stop)

    def _stop(self, signum: int, _: FrameType | None) -> None:
        self._ended_by = self._ended_by or signum
        self._wake.send(b"!")

    def run(self, runner: ScriptRunner, config: Config) -> int:
        self._runner, self._config = runner, config
        _raise_descriptor_limit()
        name = f"punch-door-{secrets.token_hex(16)}"
        self._own.bind(f"\0{name}")
        self._own.listen(1024)
        os.environ[NODE_DOOR] = name
        log(f"ec2-handler: listening on {_name(self._listener)}")
        with self._listener, self._own, self._wake, self._woken:
            self._accept()
        runner.stop()
        deadline = time.monotonic() + STOP_GRACE
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))
        return 128 + self._ended_by

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            for listener, token in self._doors.items():
                selector.register(listener, selectors.EVENT_READ, token)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._ended_by:
                for key, _ in selector.select():
                    if self._ended_by:
                        return
                    self._take(cast(socket.socket, key.fileobj), key.data)

    def _take(self, listener: socket.socket, token: bytes | None) -> None:
        self._let_go(MAX_WAITING - 1)
        try:
            connection, _ = listener.accept()
        except OSError as error:
            # No descriptor is left, say. The caller waits in the queue.
            log(f"ec2-handler: cannot take a call: {error.strerror}")
            self._let_go(0)
            time.sleep(0.1)
            return
        with self._lock:
            self._waiting[connection] = None
        thread = threading.Thread(target=self._serve, args=(connection, token), daemon=True)
        self._threads = {t for t in self._threads if t.is_alive()} | {thread}
        thread.start()

    def _let_go(self, most: int) -> None:
        """Leaves at most so many callers that have not sent their request."""
        with self._lock:
            for connection in list(self._waiting)[: max(0, len(self._waiting) - most)]:
                del self._waiting[connection]
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _serve(self, connection: socket.socket, token: bytes | None) -> None:
        with connection:
            visit = Visit(connection, token)
            try:
                try:
                    request = visit.request()
                finally:
                    with self._lock:
                        self._waiting.pop(connection, None)
                if request is None:
                    return
                if probe := Probe.from_json(request):
                    self._answer(visit, answer_probe(probe, self._config))
                    return
                event = Event.from_json(request)
            except (PunchError, OSError) as error:
                log(f"ec2-handler: no event: {error}")
                self._answer(visit, {"v": 1, "ok": False, "error": str(error)})
                return
            if event.commit == "runner" and not visit.half_closed:
                caller = connection.fileno()
                _keep_alive(connection)
            else:
                caller = None
            waits = not (isinstance(request, Mapping) and request.get("wait") is False)
            if not waits:
                # It must hear that, and stay until it does: who has left, nobody can tell any more.
                self._answer(visit, {"v": 1, "taken": True})
            result = run_event(self._runner, event, caller=caller)
            if waits:
                self._answer(visit, result.to_json())

    def _answer(self, visit: Visit, answer: dict[str, object]) -> None:
        try:
            visit.answer(answer)
        except OSError:
            log("ec2-handler: the caller left before the answer")


def _keep_alive(connection: socket.socket) -> None:
    """A machine that is gone is noticed within 20 s."""
    if connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in (
        (socket.TCP_KEEPIDLE, 10),
        (socket.TCP_KEEPINTVL, 3),
        (socket.TCP_KEEPCNT, 3),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, seconds)


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _name(listener: socket.socket) -> str:
    address = listener.getsockname()
    return str(address) if isinstance(address, str) else "{}:{}".format(*address[:2])
