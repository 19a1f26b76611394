"""A whole cloud on loopback, for `punch run --local`: no Docker and no AWS account.

    services    MiniStack (S3, DynamoDB), STUN (coturn, or our own where it is not installed),
                one EC2 handler
    nodes       each Lambda node a fresh worker: AWS's runtime interface emulator and awslambdaric
                around our handler; each EC2 node a script of the EC2 handler

Every process runs in a sandbox (punchlib.node.sandbox), so each node has its own /tmp, and when
this process ends, even by SIGKILL, nothing of it is left. A worker starts when its invocation
comes, and its address is its own: 127.x.y.z, ports 8080 and 9001, like a real one's.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from punchlib.errors import PunchError, UsageError
from punchlib.jobs.launch import Ec2Launcher, Launcher
from punchlib.jobs.placement import Place
from punchlib.local import rie
from punchlib.local.workers import LocalLambda
from punchlib.node import sandbox
from punchlib.node.ec2_handler import installation
from punchlib.runtime import engine_client, layout

BUCKET = "punch"
#: Seconds for a service to listen.
START_TIMEOUT = 30.0
#: What of the user's environment a node sees: our knobs, and nothing that happens to be set.
_PASSED_ON = ("PUNCH_", "PASH_")
_PASSED_ON_NAMES = ("HOME", "USER", "LOGNAME", "TZ", "SSL_CERT_FILE")


class LocalCloud:
    """The services and the nodes. Use it as a context manager, from the main thread.

    Args:
        verbose: pass the services' and the nodes' output on to stderr.

    Attributes:
        launchers: for each place, what starts a node there.
    """

    launchers: dict[Place, Launcher]

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose
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
        refused = sandbox.refusal()
        if refused:
            raise UsageError(
                f"{refused}: without them the nodes cannot have a /tmp and a /opt/pashlib each",
                next_step="allow user namespaces (sysctl kernel.unprivileged_userns_clone=1,"
                " kernel.apparmor_restrict_unprivileged_userns=0), run as root, or use"
                " `make local-e2e`",
            )
        root = Path(tempfile.mkdtemp(prefix="punch-local-"))
        self._exit.callback(_remove, root)
        self._root = root
        top = root / "top"
        layout.lay_out(top)
        layout.lay_out_bin(root / "bin")
        layout.write_pashlib(root / "pashlib")

        aws, stun, ec2 = (_free_port() for _ in range(3))
        env = self._node_environment(f"http://127.0.0.1:{aws}", stun)
        self._exit.enter_context(_as_our_environment(env))
        # -P: what lies in the current folder must not shadow our packages.
        python = [sys.executable, "-P", "-m"]
        self._service("engine", [*python, "punchlib.runtime.engine", env[engine_client.ENGINE]], {})
        services = [
            self._service(
                "ministack",
                [*python, "ministack"],
                {
                    "GATEWAY_PORT": str(aws),
                    "BIND_HOST": "127.0.0.1",
                    "IOT_MTLS_ENABLED": "0",  # it would listen on every address
                    # At its start it ends all containers of any other MiniStack that it can see.
                    "DOCKER_HOST": "unix:///nonexistent",
                },
            ),
            self._service("stun", _stun_command(root, stun), {}),
            self._service(
                "ec2-handler",
                [
                    *(*python, "punchlib.cli.main", "ec2-handler", "--host", "127.0.0.1"),
                    *("--port", str(ec2), "--pashlib", str(root / "pashlib")),
                ],
                {},
            ),
        ]
        for service, port in zip(services, (aws, stun, ec2), strict=True):
            _wait_for(service, port, root)
        self._make_bucket(env["AWS_BUCKET"])
        view = sandbox.View(
            keep=(*installation(), str(top)), pashlib=str(root / "pashlib"), chdir=str(top)
        )
        function = LocalLambda(root / "lambda", emulator, view, env, verbose=self._verbose)
        self._exit.callback(function.close)
        self.launchers = {"lambda": function, "ec2": Ec2Launcher("127.0.0.1", ec2)}

    def _node_environment(self, endpoint: str, stun_port: int) -> dict[str, str]:
        """What every node sees: as little of this machine as a real one would."""
        env = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(_PASSED_ON) or name in _PASSED_ON_NAMES
        }
        env |= {
            "PATH": f"{self._root / 'bin'}:{os.environ.get('PATH', os.defpath)}",
            "LANG": "C.UTF-8",
            "PASH_TOP": str(self._root / "top"),
            "AWS_BUCKET": os.environ.get("AWS_BUCKET") or BUCKET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
            # MiniStack takes any; real ones stay out of it.
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_EC2_METADATA_DISABLED": "true",
            # One engine serves all nodes.
            engine_client.ENGINE: f"punch-local-{secrets.token_hex(8)}",
        }
        # Two addresses: a client can tell what kind of mapping is in between (RFC 5780).
        env.setdefault("PASH_STUN_SERVER", f"127.0.0.1:{stun_port},127.0.0.2:{stun_port}")
        return env

    def _service(
        self, name: str, command: list[str], extra: dict[str, str]
    ) -> tuple[str, subprocess.Popen[bytes]]:
        log = None if self._verbose else (self._root / f"{name}.log").open("wb")
        process = subprocess.Popen(
            sandbox.command(command),
            env={**os.environ, "TMPDIR": str(self._root), **extra},
            stdin=subprocess.DEVNULL,
            stdout=log or 2,
            stderr=log or 2,
            start_new_session=True,
        )
        if log:
            log.close()
        self._exit.callback(_end, process)
        return name, process

    def _make_bucket(self, bucket: str) -> None:
        from punchlib.aws.clients import client
        from punchlib.config import Config

        client("s3", Config.from_env()).create_bucket(Bucket=bucket)


def _stun_command(root: Path, port: int) -> list[str]:
    coturn = shutil.which("turnserver")
    if not coturn:
        addresses = [f"127.0.0.{n}:{port}" for n in (1, 2)]
        return [sys.executable, "-P", "-m", "punchlib.local.stun_server", *addresses]
    return [
        *(coturn, "-n", "--stun-only", "--no-auth", "--no-tls", "--no-dtls", "--no-cli"),
        *("--listening-ip=127.0.0.1", "--listening-ip=127.0.0.2", f"--listening-port={port}"),
        *("--log-file=stdout", f"--pidfile={root / 'turnserver.pid'}"),
        f"--userdb={root / 'turndb'}",
    ]


def _free_port() -> int:
    """A port that nobody listens on, outside the range the kernel gives to outgoing sockets."""
    for _ in range(100):
        port = 10000 + secrets.randbelow(20000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise PunchError("no free port between 10000 and 30000")


def _wait_for(service: tuple[str, subprocess.Popen[bytes]], port: int, root: Path) -> None:
    name, process = service
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            log = root / f"{name}.log"
            tail = log.read_text(errors="replace")[-1500:] if log.exists() else ""
            raise PunchError(f"{name} did not start on 127.0.0.1:{port}:\n{tail}")
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a service at once: there is nothing to keep, and its processes go with it."""
    process.kill()
    process.wait()


def _remove(folder: Path) -> None:
    """Removes a folder into which dying processes may still write for a moment."""
    for _ in range(40):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)
    raise PunchError(f"cannot remove {folder}", next_step="look who still uses it, and remove it")


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
