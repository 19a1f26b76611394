"""The process whose forks are the local cloud: it has imported everything once.

    python -m punchlib.local.host FD PARENT     FD: a Unix seqpacket socket with requests

Requests are JSON, with descriptors: `{"serve": NAME, "log": FILE, …}` with the sockets that the
service listens on; `{"worker": {…}}` with the fields of `Worker`, and a descriptor that the worker
holds (who waits for its end holds the other); `{"kill": ADDRESS}`.

Services listen before they run: who calls early waits in the queue, and nobody looks whether they
are up. Each fork dies with this process, and this process with who started it.
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
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from punchlib.local.worker import Worker, run
from punchlib.node import sandbox

_MAX_REQUEST = 65536
#: The services' nice value as a session: some thirty times the weight of another.
PRECEDENCE = "-15"
_MAX_SOCKETS = 4


class Host:
    """The runner's end. Make it in the main thread.

    Args:
        env: the environment of all services and workers.
        log: file for what the host itself has to say; "" for our stderr.
    """

    def __init__(self, env: Mapping[str, str], log: str) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        with theirs, open(log or os.devnull, "ab") as file:
            # -P: what lies in the current folder must not shadow our packages.
            command = [sys.executable, "-P", "-m", "punchlib.local.host"]
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid())],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=file if log else 2,
                stderr=file if log else 2,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def serve(self, name: str, sockets: list[socket.socket], log: str, **options: str) -> None:
        """Starts a service; its sockets are then its alone.

        Args:
            name: a name of `SERVICES`.
            sockets: they listen already.
            log: file for its output; "" for our stderr.
            **options: what its function takes beside the sockets.
        """
        text = json.dumps({"serve": name, "log": log, "options": options}).encode()
        with contextlib.ExitStack() as passed:
            for each in sockets:
                passed.enter_context(each)
            socket.send_fds(self._socket, [text], [s.fileno() for s in sockets])

    def start(self, worker: Worker) -> socket.socket:
        """Starts a worker; the socket that comes back reads as ended when the worker has."""
        ours, theirs = socket.socketpair()
        with theirs:
            text = json.dumps({"worker": worker.to_json()}).encode()
            socket.send_fds(self._socket, [text], [theirs.fileno()])
        return ours

    def kill(self, address: str) -> None:
        """Kills a worker and all that it started."""
        with contextlib.suppress(OSError):  # the host has ended, and with it the worker
            self._socket.send(json.dumps({"kill": address}).encode())

    def close(self) -> None:
        """Ends the host, every service and every worker."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def _aws(sockets: list[socket.socket], access_key: str) -> None:
    from punchlib.local import aws_api

    aws_api.serve(sockets[0], access_key)


def _stun(sockets: list[socket.socket]) -> None:
    from punchlib.local import stun_server

    stun_server.run(sockets)


def _engine(sockets: list[socket.socket]) -> None:
    # Now, and not by an heir: the first tools of a job on one machine are those of S3.
    import boto3  # noqa: F401

    from punchlib.runtime import engine

    engine.serve(sockets[0])


def _ec2(sockets: list[socket.socket], pashlib: str) -> None:
    from punchlib.node import ec2_handler

    ec2_handler.serve(sockets[0], pashlib=Path(pashlib))


SERVICES: dict[str, Callable[..., None]] = {
    "aws": _aws,
    "stun": _stun,
    "engine": _engine,
    "ec2-handler": _ec2,
}
#: Those that have nothing to gain from what the others import.
_ALONE = ("aws", "stun")


def serve(requests: socket.socket) -> None:
    """Answers requests until the other end closes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    workers: dict[str, int] = {}
    ready = False
    while True:
        text, fds, _, _ = socket.recv_fds(requests, _MAX_REQUEST, _MAX_SOCKETS)
        if not text:
            return
        request: dict[str, Any] = json.loads(text)
        if "kill" in request:
            with contextlib.suppress(KeyError, ProcessLookupError):
                os.kill(workers.pop(request["kill"]), signal.SIGKILL)
            continue
        if not ready and request.get("serve") not in _ALONE:
            _import_everything()
            ready = True
        if "serve" in request:
            _fork(requests, request["log"], partial(_service, request, fds))
        else:
            worker = Worker.from_json(request["worker"])
            pid = _fork(requests, worker.log, partial(run, worker))
            workers[worker.address] = pid
        for fd in fds:
            os.close(fd)


def _import_everything() -> None:
    """The forks share it. Not boto3: what a node does itself is done without."""
    from punchlib.local import worker

    worker.import_runtime()
    import punchlib.node.ec2_handler
    import punchlib.node.lambda_handler  # noqa: F401

    gc.collect()
    gc.freeze()  # what is shared stays shared


def _service(request: Mapping[str, Any], fds: list[int]) -> int:
    SERVICES[request["serve"]]([socket.socket(fileno=fd) for fd in fds], **request["options"])
    return 0


def _fork(requests: socket.socket, log: str, body: Callable[[], int]) -> int:
    us = os.getpid()
    pid = os.fork()
    if pid == 0:
        sandbox.die_with_parent(us)
        requests.close()
        _child(log, body)
    return pid


def _child(log: str, body: Callable[[], int]) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if log:
            file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os.close(file)
        code = body()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _take_precedence() -> None:
    """Lets this session, which serves all nodes, have more of a busy machine than each of theirs.

    Linux shares processors between sessions (autogroups). Each node is one, and so is each stage
    that the engine runs; what they all wait for, the engine, DynamoDB and STUN, has the share of
    one in hundreds. It takes a right; without that, or in a container, all stays as it is.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(PRECEDENCE)


def main() -> int:
    """`python -m punchlib.local.host FD PARENT`."""
    sandbox.die_with_parent(int(sys.argv[2]))
    _take_precedence()
    serve(socket.socket(fileno=int(sys.argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
