"""A whole cloud on loopback, for `punch run --local`: no Docker and no AWS account.

    services    MiniStack (S3, DynamoDB), STUN, the node engine, one EC2 handler
    nodes       each Lambda node a fresh worker: AWS's runtime interface emulator and awslambdaric
                around our handler; each EC2 node a script of the EC2 handler

All are forks of one process, `punchlib.local.host`, and end with it. A worker starts when its
invocation comes, and its address is its own: 127.x.y.z, ports 8080 and 9001, like a real one's.
`punch run` has the whole in namespaces (punchlib.local.isolation), where nobody else reaches it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from punchlib.errors import PunchError
from punchlib.jobs.launch import Ec2Launcher, Launcher, Probed
from punchlib.jobs.placement import Place
from punchlib.local import rie
from punchlib.local.host import Host
from punchlib.local.workers import LocalLambda
from punchlib.node import ec2_handler, sandbox, scratch
from punchlib.runtime import engine_client, handler_call, layout
from punchlib.runtime.invoke_lambda import NODE_DOOR

BUCKET = "punch"
#: Two addresses: a client can tell what kind of mapping is in between (RFC 5780).
STUN_HOSTS = ("127.0.0.1", "127.0.0.2")
#: What of the user's environment a node sees: our knobs, and nothing that happens to be set.
_PASSED_ON = ("PUNCH_", "PASH_")
_PASSED_ON_NAMES = ("HOME", "USER", "LOGNAME", "TZ", "SSL_CERT_FILE")
#: What belongs to a handler of another job, and servers that cannot be reached from here.
_KEPT_BACK = (handler_call.TOKEN, handler_call.TOKEN_FILE, NODE_DOOR, "PASH_STUN_SERVER")


class LocalCloud:
    """The services and the nodes. Use it as a context manager, from the main thread.

    Args:
        root: an empty folder for its files, which the caller removes; None: one of its own.
        verbose: pass the services' and the nodes' output on to stderr.

    Attributes:
        launchers: for each place, what starts a node there.
        probed: the same, for probes.
    """

    launchers: dict[Place, Launcher]
    probed: Mapping[Place, Probed]

    def __init__(self, root: Path | None = None, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._given = root
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> LocalCloud:
        try:
            self._start()
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def _start(self) -> None:
        emulator = rie.locate()
        root = self._given
        if root is None:
            root = scratch.name("punch-local")
            self._exit.callback(os.close, scratch.make(root))
            self._exit.callback(_remove, root)
        self._root = root
        aws = socket.create_server((STUN_HOSTS[0], 0), backlog=1024)
        stun = _stun_sockets()
        env = self._node_environment(aws.getsockname()[1], stun[0].getsockname()[1])
        self._exit.enter_context(_as_our_environment(env))
        host = Host({**env, "TMPDIR": str(root)}, self._log("host"))
        self._exit.callback(host.close)
        host.serve("aws", [aws], self._log("aws"), access_key=env["AWS_ACCESS_KEY_ID"])
        host.serve("stun", stun, self._log("stun"))
        # While they start:
        top = root / "top"
        layout.lay_out(top)
        layout.lay_out_bin(root / "bin")
        layout.write_pashlib(root / "pashlib")
        engine = _listen_abstract(env[engine_client.ENGINE])
        host.serve("engine", [engine], self._log("engine"))
        ec2 = root / "ec2-handler"
        door_ = ec2_handler.listen(unix=ec2)
        host.serve("ec2-handler", [door_], self._log("ec2"), pashlib=str(root / "pashlib"))
        view = sandbox.View(
            keep=(*ec2_handler.installation(), str(top)),
            pashlib=str(root / "pashlib"),
            chdir=str(top),
            read_only="yes",
        )
        function = LocalLambda(host, root / "lambda", emulator, view, verbose=self._verbose)
        self.probed = {"lambda": function, "ec2": Ec2Launcher(f"unix:{ec2}")}
        self.launchers = dict(self.probed)
        self._make_bucket(env["AWS_BUCKET"])

    def _log(self, name: str) -> str:
        return "" if self._verbose else str(self._root / f"{name}.log")

    def _node_environment(self, aws_port: int, stun_port: int) -> dict[str, str]:
        """What every node sees: as little of this machine as a real one would."""
        env = {
            name: value
            for name, value in os.environ.items()
            if (name.startswith(_PASSED_ON) or name in _PASSED_ON_NAMES) and name not in _KEPT_BACK
        }
        env |= {
            "PATH": f"{self._root / 'bin'}:{os.environ.get('PATH', os.defpath)}",
            "LANG": "C.UTF-8",
            "PASH_TOP": str(self._root / "top"),
            "AWS_BUCKET": os.environ.get("AWS_BUCKET") or BUCKET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{STUN_HOSTS[0]}:{aws_port}",
            # The only key that the local API takes. What is in ~/.aws stays out of it.
            "AWS_ACCESS_KEY_ID": f"LOCAL{secrets.token_hex(16).upper()}",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            # One engine serves all nodes.
            engine_client.ENGINE: f"punch-local-{secrets.token_hex(8)}",
        }
        env["PASH_STUN_SERVER"] = ",".join(f"{host}:{stun_port}" for host in STUN_HOSTS)
        return env

    def _make_bucket(self, bucket: str) -> None:
        """Waits for the local API by the way; what the run needs anyhow is made meanwhile."""
        import boto3.s3.transfer  # noqa: F401 (at the first upload, otherwise)
        from botocore.exceptions import BotoCoreError, ClientError

        from punchlib.aws import clients
        from punchlib.config import Config

        if self._given:  # this process is the run's alone
            clients.keep()
        try:
            clients.client("s3", Config.from_env()).create_bucket(Bucket=bucket)
        except (BotoCoreError, ClientError) as error:
            log = self._root / "aws.log"
            tail = log.read_text(errors="replace")[-1500:] if log.exists() else ""
            raise PunchError(f"the local AWS API does not answer: {error}\n{tail}") from error


def _stun_sockets() -> list[socket.socket]:
    """A TCP and a UDP socket on each address, all of one port."""
    for _ in range(100):
        with contextlib.ExitStack() as opened:
            first = opened.enter_context(socket.create_server((STUN_HOSTS[0], 0), backlog=1024))
            port = first.getsockname()[1]
            sockets = [first]
            try:
                for host in STUN_HOSTS[1:]:
                    listener = socket.create_server((host, port), backlog=1024)
                    sockets.append(opened.enter_context(listener))
                for host in STUN_HOSTS:
                    datagrams = socket.socket(type=socket.SOCK_DGRAM)
                    sockets.append(opened.enter_context(datagrams))
                    datagrams.bind((host, port))
            except OSError:
                continue  # somebody has that port on another address
            opened.pop_all()
            return sockets
    raise PunchError("no port is free on both addresses for STUN")


def _listen_abstract(name: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(f"\0{name}")
    listener.listen(128)
    return listener


def _remove(folder: Path) -> None:
    if not scratch.remove(folder):
        raise PunchError(
            f"cannot remove {folder}", next_step="look who still uses it, and remove it"
        )


@contextlib.contextmanager
def _as_our_environment(env: dict[str, str]) -> Iterator[None]:
    """Makes `env` our own environment: boto3 takes endpoint and credentials from there."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
