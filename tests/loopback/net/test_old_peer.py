"""An old (v1) program at the other end, on one machine, in both directions."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.coturn import coturn
from tests.support.ministack import MiniStack
from tests.support.tiers import quick

OLD = [sys.executable, "-m", "tests.support.old_peer", "ec2"]
NEW = [sys.executable, "-m", "punchlib.runtime.pashlib"]
TIMEOUT = 40.0 * float(os.environ.get("PUNCH_TEST_TIME_FACTOR", "1"))


@pytest.fixture(scope="module")
def env(ministack: MiniStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with coturn(tmp_path_factory.mktemp("coturn")) as (host, port):
        yield {
            **os.environ,
            **ministack.env,
            "PASH_STUN_SERVER": f"{host}:{port}",
            "PUNCH_TIMEOUT": str(TIMEOUT),
        }


class Pair:
    """A sender and a receiver with a FIFO each.

    Args:
        old_sends: the old program is the sender; otherwise the receiver.
    """

    def __init__(self, folder: Path, env: dict[str, str], *, old_sends: bool) -> None:
        key = uuid.uuid4().hex
        self.fifos = [folder / "send", folder / "recv"]
        # The old side first: its only dial may else come before we know of it (docs/migrating.md).
        self._processes = {}
        for verb, labels, fifo, old in sorted(
            (
                ("send", "0*1", self.fifos[0], old_sends),
                ("recv", "1*0", self.fifos[1], not old_sends),
            ),
            key=lambda end: not end[3],
        ):
            os.mkfifo(fifo)
            state = folder / f"state-{verb}"
            state.mkdir()
            self._processes[verb] = process = subprocess.Popen(
                [*(OLD if old else NEW), f"{verb}*{key}*{labels}*{fifo}"],
                env={**env, "PUNCH_STATE_DIR": str(state)},
                stderr=subprocess.PIPE,
                text=True,
            )
            if old:
                assert process.stderr
                while (line := process.stderr.readline()) and "Get local_addr" not in line:
                    continue

    @property
    def sender(self) -> subprocess.Popen[str]:
        return self._processes["send"]

    def end(self) -> tuple[list[int], str]:
        """Exit codes of sender and receiver, and what both wrote to stderr."""
        both = [self._processes[verb] for verb in ("send", "recv")]
        said = [process.communicate(timeout=TIMEOUT)[1] for process in both]
        return [process.returncode for process in both], "\n".join(said)

    def kill(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.communicate()


@contextlib.contextmanager
def pair(folder: Path, env: dict[str, str], *, old_sends: bool) -> Iterator[Pair]:
    both = Pair(folder, env, old_sends=old_sends)
    try:
        yield both
    finally:
        both.kill()


def feed(fifo: Path, data: bytes, delay: float = 0.0) -> None:
    """Writes into a FIFO from a thread of its own; opening it waits for the reader."""

    def write() -> None:
        time.sleep(delay)
        fifo.write_bytes(data)

    threading.Thread(target=write, daemon=True).start()


@pytest.mark.parametrize("old_sends", [True, False], ids=["old-sends", "old-receives"])
@pytest.mark.parametrize("size", quick([300_000, 0, 127], 1))
def test_the_bytes_arrive(tmp_path: Path, env: dict[str, str], old_sends: bool, size: int) -> None:
    payload = os.urandom(size)
    with pair(tmp_path, env, old_sends=old_sends) as both:
        feed(both.fifos[0], payload)
        assert both.fifos[1].read_bytes() == payload
        codes, said = both.end()
    assert codes == [0, 0], said
    assert "the peer speaks the old wire (v1)" in said


@pytest.mark.slow
@pytest.mark.parametrize("old_sends", [True, False], ids=["old-sends", "old-receives"])
def test_a_fifo_that_opens_late_is_waited_for(
    tmp_path: Path, env: dict[str, str], old_sends: bool
) -> None:
    with pair(tmp_path, env, old_sends=old_sends) as both:
        feed(both.fifos[0], b"late\n", delay=4.0)
        time.sleep(6.0)
        assert both.fifos[1].read_bytes() == b"late\n"
        codes, said = both.end()
    assert codes == [0, 0], said


def test_a_run_with_a_job_key_refuses_an_old_peer(tmp_path: Path, env: dict[str, str]) -> None:
    with pair(tmp_path, {**env, "PUNCH_JOB_KEY": "00" * 32}, old_sends=True) as both:
        # The FIFO's reader must see an end, too.
        assert both.fifos[1].read_bytes() == b""
        both.sender.kill()
        codes, said = both.end()
    assert codes[1] == 5, said
    assert "old (v1)" in said
