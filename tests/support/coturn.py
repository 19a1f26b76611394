"""coturn on loopback, with two addresses, for tests that need a real STUN server."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def coturn(folder: Path) -> Iterator[tuple[str, int]]:
    """Runs coturn; its first address. The second is 127.0.0.2."""
    program = shutil.which("turnserver")
    if program is None:
        pytest.fail("coturn is not installed: apt-get install coturn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with open(folder / "coturn.log", "w") as log:
        process = subprocess.Popen(
            [
                program,
                *("-n", "--stun-only", "--no-auth", "--no-tls", "--no-dtls", "--no-cli"),
                *("--listening-ip", "127.0.0.1", "--listening-ip", "127.0.0.2"),
                *("--listening-port", str(port), "--log-file", "stdout"),
                *("--pidfile", str(folder / "coturn.pid")),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        _await(port)
        yield "127.0.0.1", port
    finally:
        process.kill()
        process.wait()


def _await(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.05)
    pytest.fail(f"coturn does not listen on {port}")
