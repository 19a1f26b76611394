"""As many connections as Lambda's limit on descriptors has room for, all at once."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from punchlib.runtime.layout import write_pashlib
from tests.support.coturn import coturn
from tests.support.ministack import MiniStack

#: Lambda's limit, and the connections that a process is to have there.
LIMIT, MANY = 1024, 256
PATIENCE = 300.0


@pytest.fixture
def env(ministack: MiniStack, tmp_path: Path) -> Iterator[dict[str, str]]:
    with coturn(tmp_path) as (host, port):
        yield {
            **ministack.env,
            "PATH": os.environ["PATH"],
            "PASH_STUN_SERVER": f"{host}:{port}",
            "PUNCH_TIMEOUT": str(PATIENCE),
            "PUNCH_STATE_DIR": str(tmp_path / "state"),
        }


class Process:
    """One pashlib under the limit; remembers the most descriptors that it was seen to hold."""

    def __init__(self, folder: Path, env: dict[str, str], name: str, arguments: list[str]) -> None:
        self.log = folder / name
        self.most = 0
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                ["bash", "-c", f'ulimit -n {LIMIT}; exec "$@"', "-", "./pashlib", *arguments],
                cwd=folder,
                env=env,
                stdout=out,
                stderr=out,
            )

    def count(self, line: str) -> int:
        return self.log.read_text().count(line)

    def look(self) -> None:
        assert self.process.poll() in (None, 0), self.log.read_text()[-2000:]
        with contextlib.suppress(OSError):  # it has just ended
            held = list(Path(f"/proc/{self.process.pid}/fd").iterdir())
            self.most = max(self.most, len(held))


@pytest.mark.slow
def test_256_connections_under_lambdas_limit_are_all_direct(
    env: dict[str, str], tmp_path: Path
) -> None:
    """One end waits with all of them; then the other comes, with all at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    write_pashlib(tmp_path / "pashlib")
    sources, targets = [], []
    for n in range(MANY):
        for fifo in (f"a{n}", f"b{n}"):
            os.mkfifo(tmp_path / fifo)
        sources.append(os.open(tmp_path / f"a{n}", os.O_RDWR))
        os.write(sources[-1], b"stream %d" % n)
        targets.append(os.open(tmp_path / f"b{n}", os.O_RDONLY | os.O_NONBLOCK))
    keys = range(MANY)
    receiver = Process(tmp_path, env, "recv", [f"recv*k{n}*1*0*b{n}" for n in keys])
    ends = [receiver]
    try:
        wait_for(ends, lambda: receiver.count("Get local_addr") == MANY)
        sender = Process(tmp_path, env, "send", [f"send*k{n}*0*1*a{n}" for n in keys])
        ends.append(sender)
        wait_for(ends, lambda: all(end.count(" connected route=") == MANY for end in ends))
        for end in ends:
            assert end.count("route=s3") == 0
            print(end.log.name, "held at most", end.most)
            assert end.most < LIMIT, "there was no room for anything more"
        for n, target in enumerate(targets):
            arrived = bytearray()
            wait_for(ends, lambda a=arrived, t=target, n=n: whole(a, t, b"stream %d" % n))  # type: ignore[misc]
    finally:
        for end in ends:
            end.process.kill()
            end.process.wait()
        for fd in (*sources, *targets):
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def whole(arrived: bytearray, target: int, wanted: bytes) -> bool:
    """Whether that has come by now, and nothing else."""
    with contextlib.suppress(BlockingIOError):
        arrived += os.read(target, 100)
    assert wanted.startswith(arrived)
    return arrived == wanted


def wait_for(ends: list[Process], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, [end.log.read_text()[-2000:] for end in ends]
        for end in ends:
            end.look()
        time.sleep(0.05)
