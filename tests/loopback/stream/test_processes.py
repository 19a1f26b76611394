"""Both ends as processes of their own, killed with -9 at a byte, and their stages with them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bench.stream_end import write_terms
from tests.support.stream_rig import DEADLINE, FACTOR, Rig, background, digest, payload
from tests.support.tiers import quick
from tests.support.wakeups import wakeups

END = Path(__file__).parents[3] / "bench" / "stream_end.py"
MIB = 1 << 20
SECURITIES = ("authenticated", "encrypted")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Ends:
    """The sender's and the receiver's process."""

    def __init__(self, rig: Rig, security: str, silence: float, factor: float) -> None:
        self._times = ["--factor", str(factor), "--silence", str(silence)]
        terms = rig.folder / "terms"
        write_terms(terms, security, 1)
        port = free_port()
        self.recv = self._start("recv", security, terms, f"--listen=127.0.0.1:{port}", rig.sink)
        self.send = self._start("send", security, terms, f"--peer=127.0.0.1:{port}", rig.source)

    def _start(
        self, role: str, security: str, terms: Path, where: str, fifo: str
    ) -> subprocess.Popen[str]:
        command = [sys.executable, str(END), role, security, "--terms", str(terms), where]
        return subprocess.Popen(
            [*command, *self._times, fifo],
            stdout=subprocess.PIPE,
            text=True,
        )

    def finish(self, end: subprocess.Popen[str]) -> tuple[int, dict[str, object]]:
        """Exit code and what the end said of its stream."""
        out, _ = end.communicate(timeout=DEADLINE + 10)
        return end.returncode, json.loads(out.splitlines()[-1])["streams"][0] if out else {}


@contextmanager
def ends(rig: Rig, security: str, silence: float = 10.0, factor: float = FACTOR) -> Iterator[Ends]:
    both = Ends(rig, security, silence, factor)
    try:
        yield both
    finally:
        for end in (both.send, both.recv):
            end.kill()
            end.communicate()


def wait_for(rig: Rig, size: int) -> None:
    """Until the drain has got `size` bytes."""
    deadline = time.monotonic() + 20
    while len(rig.got) < size:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("security", SECURITIES)
def test_two_processes(tmp_path: Path, security: str) -> None:
    rig = Rig(tmp_path, payload(3 * MIB + 1))
    with ends(rig, security) as both, rig.stages():
        assert both.finish(both.send)[0] == 0
        code, said = both.finish(both.recv)
    assert (code, said["bytes"]) == (0, len(rig.data))
    assert digest(rig.got) == digest(rig.data)


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("victim", ["send", "recv"])
@pytest.mark.parametrize("at", [1, 70_000, 3 * MIB])
def test_a_killed_end_is_an_error_at_the_other(
    tmp_path: Path, security: str, victim: str, at: int
) -> None:
    """kill -9 in mid-stream: never a short result with exit 0."""
    rig = Rig(tmp_path, payload(200 * MIB))
    with ends(rig, security) as both, rig.stages():
        wait_for(rig, at)
        dead, other = (both.send, both.recv) if victim == "send" else (both.recv, both.send)
        started = time.monotonic()
        dead.send_signal(signal.SIGKILL)
        code, said = both.finish(other)
        assert time.monotonic() - started < DEADLINE
    assert code == 6
    assert "at byte" in str(said["error"])
    assert at <= len(rig.got) < len(rig.data)
    assert rig.data.startswith(bytes(rig.got))


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["send", "recv"])
def test_a_stopped_end_is_given_up_after_the_silence(tmp_path: Path, victim: str) -> None:
    """SIGSTOP: the connection stays up, its kernel acknowledges all, and nothing comes."""
    rig = Rig(tmp_path, payload(200 * MIB))
    with ends(rig, "authenticated") as both, rig.stages():
        wait_for(rig, MIB)
        dead, other = (both.send, both.recv) if victim == "send" else (both.recv, both.send)
        dead.send_signal(signal.SIGSTOP)
        code, said = both.finish(other)
        assert code == 6
        why = f"the peer's machine answers, its process has said nothing for {10 * FACTOR:g} s"
        assert why in str(said["error"])
        dead.kill()


@pytest.mark.parametrize("security", quick(SECURITIES, 1))
@pytest.mark.parametrize("victim", ["send", "recv"])
def test_an_end_that_stood_still_goes_on(tmp_path: Path, security: str, victim: str) -> None:
    """SIGSTOP in mid-stream for many times what the machine's death would take; then SIGCONT."""
    rig = Rig(tmp_path, payload(200 * MIB))
    with ends(rig, security, silence=300.0) as both, rig.stages():
        wait_for(rig, MIB)
        slow = both.send if victim == "send" else both.recv
        slow.send_signal(signal.SIGSTOP)
        time.sleep(6.0)
        got = len(rig.got)
        assert both.send.poll() is None
        assert both.recv.poll() is None
        slow.send_signal(signal.SIGCONT)
        assert both.finish(both.send)[0] == 0
        assert both.finish(both.recv)[0] == 0
    assert got < len(rig.data)
    assert digest(rig.got) == digest(rig.data)


@pytest.mark.slow
def test_a_connection_that_waits_hardly_wakes_up(tmp_path: Path) -> None:
    """Its own PING and the peer's, every ten seconds each, while nothing flows."""
    rig = Rig(tmp_path, b"")
    with ends(rig, "encrypted", silence=300.0, factor=1.0) as both, ExitStack() as held:
        source = os.open(rig.source, os.O_RDWR)
        held.callback(os.close, source)
        held.enter_context(background(rig.drain, rig.release))
        os.write(source, b"x")
        wait_for(rig, 1)
        time.sleep(1.0)
        before = [wakeups(end.pid) for end in (both.send, both.recv)]
        time.sleep(20.0)
        after = [wakeups(end.pid) for end in (both.send, both.recv)]
        for one, other in zip(before, after, strict=True):
            assert other > one  # they do say PING
            assert other - one <= 8
        for end in (both.send, both.recv):
            end.kill()


def test_a_killed_feeder_looks_like_an_end(tmp_path: Path) -> None:
    """Why failure markers exist: to the FIFO's reader a dead writer is an end of file."""
    rig = Rig(tmp_path, b"")
    with ends(rig, "authenticated") as both, background(rig.drain, rig.release):
        feeder = subprocess.Popen(["sh", "-c", f"exec cat /dev/zero > '{rig.source}'"])
        wait_for(rig, MIB)
        feeder.kill()
        feeder.wait()
        assert both.finish(both.send)[0] == 0
        assert both.finish(both.recv)[0] == 0
    assert not any(rig.got)


def test_no_key_in_arguments_environment_or_files(tmp_path: Path) -> None:
    """The private key exists in memory alone: nothing that /proc shows has it."""
    rig = Rig(tmp_path, payload(MIB))
    with ends(rig, "encrypted") as both, background(rig.drain, rig.release):
        fd = os.open(rig.source, os.O_WRONLY)
        os.write(fd, b"x")
        wait_for(rig, 1)
        proc = Path(f"/proc/{both.send.pid}")
        shown = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
        assert b"PRIVATE KEY" not in shown
        links = [str(link.readlink()) for link in (proc / "fd").iterdir()]
        assert not any("memfd" in link for link in links)
        os.close(fd)
        assert both.finish(both.send)[0] == 0
        assert both.finish(both.recv)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("security", SECURITIES)
def test_a_large_sparse_file(tmp_path: Path, security: str) -> None:
    """In `make faults` it has 4 GiB and 1 byte: no length is ever kept in 32 bits."""
    size = (4 << 30) + 1 if int(os.environ.get("FAULTS", "0")) >= 1000 else (64 << 20) + 1
    rig = Rig(tmp_path, b"")
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(size)
    with ends(rig, security) as both:
        feeder = subprocess.Popen(["sh", "-c", f"exec cat {sparse} > '{rig.source}'"])
        counter = subprocess.run(
            ["sh", "-c", f"exec wc -c < '{rig.sink}'"], capture_output=True, timeout=300
        )
        assert feeder.wait() == 0
        assert int(counter.stdout) == size
        for end in (both.send, both.recv):
            code, said = both.finish(end)
            assert (code, said["bytes"]) == (0, size)
