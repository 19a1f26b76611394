"""What the lab's hosts call: coturn as STUN server on two addresses, MiniStack as the AWS API."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from tests.support.netlab_ns import LabError, Namespace

#: Two addresses with two ports each: what RFC 5780 needs to tell mapping behaviours apart.
STUN_ADDRESSES = ("198.18.0.10", "198.18.0.11")
STUN_PORT = 3478
STUN_ALTERNATE_PORT = 3479
AWS_ADDRESS = "198.18.0.20"
AWS_PORT = 4566
AWS_ENDPOINT = f"http://{AWS_ADDRESS}:{AWS_PORT}"
BUCKET = "lab"

_START_TIMEOUT = 20.0


class Services:
    """Starts the servers in a namespace that has their addresses; logs go to a private folder."""

    def __init__(self, ns: Namespace) -> None:
        self.ns = ns
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Services:
        folder = Path(
            self._stack.enter_context(
                tempfile.TemporaryDirectory(prefix="plab-", ignore_cleanup_errors=True)
            )
        )
        self._stack.callback(self.ns.reap)
        self._log = self._stack.enter_context((folder / "services.log").open("w+b"))
        self._start(_coturn(folder), folder, {})
        self._start(
            [sys.executable, "-m", "ministack"],
            folder,
            {
                "BIND_HOST": AWS_ADDRESS,
                "GATEWAY_PORT": str(AWS_PORT),
                "SERVICES": "dynamodb,s3,sts",
                "LOG_LEVEL": "ERROR",
                # At its start it ends all containers of any other MiniStack that it can see.
                "DOCKER_HOST": "unix:///nonexistent",
            },
        )
        for address, port in (
            *((a, p) for a in STUN_ADDRESSES for p in (STUN_PORT, STUN_ALTERNATE_PORT)),
            (AWS_ADDRESS, AWS_PORT),
        ):
            self._await(address, port)
        self.ns.run(
            [sys.executable, "-c", _MAKE_BUCKET, AWS_ENDPOINT, BUCKET],
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start(self, argv: list[str], folder: Path, extra: dict[str, str]) -> None:
        self.ns.popen(
            argv,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder), "HOME": str(folder), **extra},
            stdout=self._log,
            stderr=self._log,
        )

    def _await(self, address: str, port: int) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        probe = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"
        while True:
            with contextlib.suppress(LabError):
                self.ns.run([sys.executable, "-I", "-S", "-c", probe, address, str(port)])
                return
            if time.monotonic() > deadline:
                self._log.seek(0)
                said = self._log.read().decode(errors="replace")[-2000:]
                raise LabError(f"nothing listens on {address}:{port}: {said}")
            time.sleep(0.05)


_MAKE_BUCKET = """
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(f"{sys.argv[1]}/{sys.argv[2]}", method="PUT"))
"""


def _coturn(folder: Path) -> list[str]:
    binary = shutil.which("turnserver")
    if binary is None:
        raise LabError("turnserver is not installed (Debian package coturn)")
    return [
        binary,
        "-n",  # no configuration file
        "--stun-only",
        "--no-cli",
        "--no-tls",
        "--no-dtls",
        "--log-file=stdout",
        f"--pidfile={folder}/turnserver.pid",
        f"--userdb={folder}/turndb",
        f"--listening-port={STUN_PORT}",
        f"--alt-listening-port={STUN_ALTERNATE_PORT}",
        *(f"--listening-ip={address}" for address in STUN_ADDRESSES),
    ]
