"""EC2 handlers of a test's own, and a folder that their scripts see."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from punchlib.local.cloud import LocalCloud
from tests.support.jobtools import wait_until

PUNCH = [sys.executable, "-m", "punchlib.cli.main"]


class Handler:
    """A handler of its own, and the file its log goes to."""

    def __init__(self, folder: Path, *args: str, descriptors: int = 0, **env: str) -> None:
        self.log = folder / "log"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])

        def limit() -> None:
            if descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [*PUNCH, "ec2-handler", "--port", str(self.port), *args],
                stderr=file,
                env={**os.environ, **env},
                preexec_fn=limit,
            )
        wait_until(lambda: b"listening" in self.log.read_bytes())

    @property
    def where(self) -> str:
        return f"127.0.0.1:{self.port}"

    def send(self, data: bytes) -> dict[str, Any]:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(data)
            with connection.makefile("rb") as answer:
                return dict(json.loads(answer.read()))

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))  # noqa: PTH208

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(20) == 143
        assert "Traceback" not in self.log.read_text()


@pytest.fixture
def handler(cloud: LocalCloud, tmp_path: Path) -> Iterator[Callable[..., Handler]]:
    with contextlib.ExitStack() as running:

        def start(*args: str, descriptors: int = 0, **env: str) -> Handler:
            made = Handler(tmp_path, *args, descriptors=descriptors, **env)
            running.callback(made.stop)
            return made

        yield start


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder that scripts see as we do: not below /tmp."""
    folder = Path(tempfile.mkdtemp(prefix="punch-test-", dir="/var/tmp"))
    yield folder
    shutil.rmtree(folder)
