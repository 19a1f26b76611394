"""The local AWS API (MiniStack) on a free loopback port, for any test that talks to AWS."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from punchlib.aws.clients import client
from punchlib.config import Config


@dataclass(frozen=True)
class MiniStack:
    """A running MiniStack.

    Attributes:
        url: its endpoint, for AWS_ENDPOINT_URL.
        port: its port on 127.0.0.1.
        env: the variables that a child process needs to talk to it.
    """

    url: str
    port: int
    env: dict[str, str]

    def client(self, service: str) -> Any:
        """A boto3 client; uses `env`, so it works wherever the process' own environment points."""
        saved = {name: os.environ.get(name) for name in self.env}
        os.environ.update(self.env)
        try:
            return client(service, Config.from_env())
        finally:
            for name, value in saved.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def free_port() -> int:
    """A TCP port on loopback that nobody used a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def start(folder: Path) -> tuple[MiniStack, subprocess.Popen[bytes]]:
    """Starts MiniStack; its log is `ministack.log` in `folder`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with (folder / "ministack.log").open("wb") as log:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "ministack"],
            # Without Docker: at its start it ends all containers of any other MiniStack it can see.
            env=os.environ
            | {
                "GATEWAY_PORT": str(port),
                "BIND_HOST": "127.0.0.1",
                "DOCKER_HOST": "unix:///nonexistent",
            },
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return MiniStack(url, port, env), process
    process.kill()
    process.wait()
    raise RuntimeError(f"MiniStack did not start: {(folder / 'ministack.log').read_text()}")


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniStack]:
    """One MiniStack for the whole session."""
    running, process = start(tmp_path_factory.mktemp("ministack"))
    yield running
    process.terminate()
    process.wait(10)
