"""A worker that is held back: frozen between events, with a share of a processor."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.jobtools import wait_until
from tests.support.runtime_api import RuntimeApi

HOLD_BACK = importlib.import_module("services.lambda.hold_back").__file__
#: Asks for events with a child that spins meanwhile, one that its parent has left.
RUNTIME = """
import http.client, os, subprocess, sys
spin = "import itertools\\nfor _ in itertools.count(): pass"
subprocess.run(["sh", "-c", 'exec "$@" & ', "sh", sys.executable, "-c", spin, "SPIN"])
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    print("got", api.getresponse().read().decode(), flush=True)
    api.request("POST", "/2018-06-01/runtime/invocation/1/response", b"x" * 100_000)
    api.getresponse().read()
"""


@pytest.fixture
def api() -> Iterator[RuntimeApi]:
    api = RuntimeApi()
    yield api
    api.close()


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(api: RuntimeApi, tmp_path: Path) -> Iterator[Start]:
    running: list[subprocess.Popen[bytes]] = []

    def start(*command: str, **env: str) -> subprocess.Popen[bytes]:
        more = {"AWS_LAMBDA_RUNTIME_API": api.address, **env}
        assert HOLD_BACK
        process = subprocess.Popen(
            [sys.executable, "-IS", HOLD_BACK, *(command or (sys.executable, "-c", RUNTIME))],
            env={**os.environ, **more},
            stdout=subprocess.PIPE,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            left = _children(process.pid)
            process.kill()
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _states(pid: int) -> set[str]:
    return {
        Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        for child in _children(pid)
    }


def _used(pid: int) -> float:
    """Seconds of processor time of what it has started."""
    fields = [
        Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        for child in _children(pid)
    ]
    return sum(int(f[11]) + int(f[12]) for f in fields) / os.sysconf("SC_CLK_TCK")


def test_frozen_between_events(api: RuntimeApi, start: Start) -> None:
    # So long that the child gets some ticks of the clock before it is frozen again.
    process = start(EMULATED_FREEZE="0.5")
    assert process.stdout
    for word in ("first", "second"):
        wait_until(lambda: len(_children(process.pid)) == 2 and _states(process.pid) == {"T"})
        before = _used(process.pid)
        time.sleep(0.5)
        assert _used(process.pid) == before
        api.give(word.encode())
        assert process.stdout.readline() == f"got {word}\n".encode()
        wait_until(api.asked.is_set)
        assert api.answers == [b"x" * 100_000]
        wait_until(lambda b=before: _used(process.pid) > b)  # type: ignore[misc]


def test_never_frozen_unless_asked(start: Start) -> None:
    process = start()
    wait_until(lambda: len(_children(process.pid)) == 2)
    time.sleep(0.3)
    assert "T" not in _states(process.pid)


def test_a_share_of_a_processor(start: Start) -> None:
    process = start(EMULATED_CPUS="0.25")
    wait_until(lambda: len(_children(process.pid)) == 2)
    used, began = _used(process.pid), time.monotonic()
    time.sleep(2)
    share = (_used(process.pid) - used) / (time.monotonic() - began)
    # On a busy machine it gets less than it may have.
    assert 0.01 < share < 0.4


@pytest.mark.parametrize(("command", "status"), [("exit 7", 7), ("kill -9 $$", 137)])
def test_the_commands_status_is_its_own(command: str, status: int, start: Start) -> None:
    process = start("sh", "-c", f"sleep 60 & {command}", EMULATED_FREEZE="0.05")
    process.communicate(timeout=20)  # which also waits for what it had started
    assert process.returncode == status


def test_a_signal_reaches_the_frozen(start: Start) -> None:
    process = start(EMULATED_FREEZE="0.05")
    wait_until(lambda: len(_children(process.pid)) == 2 and _states(process.pid) == {"T"})
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 143
