"""The node engine: the same pashlib, forked. Everything here also holds without an engine."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchlib.net import descriptors
from punchlib.runtime import engine
from punchlib.runtime.layout import write_pashlib
from tests.support.coturn import coturn
from tests.support.ministack import MiniStack
from tests.support.pashlib_rig import is_worker_of
from tests.support.wakeups import wakeups

PAYLOAD = os.urandom(3_000_000)


@pytest.fixture(scope="module")
def base(
    ministack: MiniStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    with coturn(tmp_path_factory.mktemp("coturn")) as (host, port):
        yield {
            **ministack.env,
            "PATH": os.environ["PATH"],
            "PASH_STUN_SERVER": f"{host}:{port}",
            "PUNCH_TIMEOUT": "30",
        }


@pytest.fixture
def alone(base: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A caller's environment: a node of its own, and no engine."""
    return base | {"PUNCH_STATE_DIR": str(tmp_path / "state")}


@pytest.fixture
def served(alone: dict[str, str]) -> Iterator[dict[str, str]]:
    """The same with an engine, which has only just been started."""
    with engine.spawn(alone) as name:
        yield alone | {"PUNCH_ENGINE": name}


@pytest.fixture(params=["served", "alone"], ids=["engine", "in-process"])
def env(request: pytest.FixtureRequest) -> dict[str, str]:
    found: dict[str, str] = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def pashlib(tmp_path: Path) -> Path:
    write_pashlib(tmp_path / "pashlib")
    return tmp_path / "pashlib"


def start(
    pashlib: Path, env: dict[str, str], *arguments: str, prefix: tuple[str, ...] = ()
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*prefix, str(pashlib), *arguments],
        env=env,
        cwd=pashlib.parent,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def markers(env: dict[str, str]) -> str:
    return "".join(p.read_text() for p in Path(env["PUNCH_STATE_DIR"]).glob("failures/*"))


def wait_until(condition: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def move(pashlib: Path, env: dict[str, str], key: str, prefix: tuple[str, ...] = ()) -> None:
    """Sends `PAYLOAD` through two pashlibs and two FIFOs."""
    source, sink = pashlib.parent / f"in {key}", pashlib.parent / f"#out*{key}"
    for fifo in (source, sink):
        os.mkfifo(fifo)
    sender = start(pashlib, env, f"send*{key}*0*1*{source}", prefix=prefix)
    receiver = start(pashlib, env, f"recv*{key}*1*0*{sink}", prefix=prefix)
    whole = pashlib.parent / f"whole {key}"
    whole.write_bytes(PAYLOAD)
    writer = subprocess.Popen(["dd", f"if={whole}", f"of={source}", "bs=64k", "status=none"])
    reader = subprocess.Popen(["cat", str(sink)], stdout=subprocess.PIPE)
    got = reader.communicate(timeout=60)[0]
    assert hashlib.sha256(got).digest() == hashlib.sha256(PAYLOAD).digest()
    for process in (sender, receiver):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
        assert b"connected route=" in errors, "its stderr is ours"
    assert writer.wait(10) == 0


def test_it_moves_bytes(pashlib: Path, env: dict[str, str]) -> None:
    move(pashlib, env, "k")


def test_each_caller_may_have_its_own_tmp(
    pashlib: Path, env: dict[str, str], tmp_path: Path
) -> None:
    """The FIFO's path means nothing in the engine's own mount namespace."""
    private = tmp_path / "private"
    private.mkdir()
    script = f"""
        set -e
        mount -t tmpfs none {private}; cd {private}; mkdir state; mkfifo a b
        printf hello > a &
        {pashlib} send*m*0*1*{private}/a & p=$!
        {pashlib} recv*m*1*0*b & q=$!
        got=$(cat b); wait $p; wait $q; echo got $got
    """
    done = subprocess.run(
        ["unshare", "-Urm", "bash", "-c", script],
        env=env | {"PUNCH_STATE_DIR": f"{private}/state"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == b"got hello\n", done.stderr.decode()
    assert list(private.iterdir()) == []


def test_a_missing_fifo_is_named_as_the_caller_named_it(pashlib: Path, env: dict[str, str]) -> None:
    process = start(pashlib, env, "recv*k*1*0*no such fifo")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert b"mkfifo 'no such fifo'" in errors
    assert not (pashlib.parent / "no such fifo").exists()


def test_the_callers_death_is_the_tools(pashlib: Path, served: dict[str, str]) -> None:
    os.mkfifo(pashlib.parent / "f")
    process = start(pashlib, served, "recv*d*1*0*f")
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"Get local_addr")
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    wait_until(lambda: "stopped" in markers(served))
    # Nobody holds its stderr any more: the tool is gone.
    assert b"stopped by SIGTERM" in process.stderr.read()
    process.stderr.close()


#: A caller whose last bytes come when its tool runs already; on a busy machine they do.
LATE_CALLER = """
import os, sys, time
from punchlib.runtime import engine_client

def hand_over(sock, *rest, really=engine_client._hand_over):
    really(sock, *rest)
    for _ in range(100):
        sock.send(b"x")
        time.sleep(0.005)

engine_client._hand_over = hand_over
sys.exit(engine_client._by_engine(os.environb[b"PUNCH_ENGINE"], "pashlib", sys.argv[1:]) or 99)
"""


@pytest.mark.slow
def test_news_from_the_caller_are_not_its_death(pashlib: Path, served: dict[str, str]) -> None:
    fifo = pashlib.parent / "f"
    os.mkfifo(fifo)
    done = subprocess.run(
        [sys.executable, "-c", LATE_CALLER, f"recv*n*1*0*{fifo}"],
        env=served | {"PUNCH_TIMEOUT": "3"},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert b"did not come within 3 s" in done.stderr
    assert done.returncode == 3


def test_sigterm_is_for_the_tool(pashlib: Path, env: dict[str, str]) -> None:
    """The caller ends when the tool has, with its exit code; its marker says what it waited for."""
    os.mkfifo(pashlib.parent / "f")
    process = start(pashlib, env | {"PUNCH_TIMEOUT": "60"}, "recv*d*1*0*f")
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"Get local_addr")
    time.sleep(0.3)
    process.terminate()
    assert process.wait(10) == 143
    said = process.stderr.read().decode()
    assert "waiting for the peer (key 'd', label '0') to register: it never registered" in said
    assert "waiting for the peer" in markers(env)
    process.stderr.close()


def test_the_console_script_is_served_too(pashlib: Path, served: dict[str, str]) -> None:
    """`pashlib` of the virtual environment: 35 starts of Python where it ignored the engine."""
    os.mkfifo(pashlib.parent / "f")
    console = Path(sys.executable).with_name("pashlib")
    with subprocess.Popen(
        [console, "recv*c*1*0*f"], env=served, cwd=pashlib.parent, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        served_by = [p for p in Path("/proc").iterdir() if is_worker_of(p, pashlib.parent)]
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert said.startswith(b"Get local_addr"), errors.decode()
    assert len(served_by) == 1
    assert process.returncode == 143, errors.decode()


def tool_of(pashlib: Path) -> int:
    """The engine's fork that serves the callers in this folder."""
    (tool,) = (p for p in Path("/proc").iterdir() if is_worker_of(p, pashlib.parent))
    return int(tool.name)


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def waiting(pashlib: Path, env: dict[str, str], argument: str) -> subprocess.Popen[bytes]:
    """A tool that has registered and waits for its peer."""
    process = start(pashlib, env, argument)
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"Get local_addr")
    time.sleep(1.0)
    return process


def test_waiting_for_a_peer_wakes_nobody_up(pashlib: Path, served: dict[str, str]) -> None:
    """It used to read the rendezvous up to fifty times a second, and each process did."""
    os.mkfifo(pashlib.parent / "f")
    process = waiting(pashlib, served, "recv*w*1*0*f")
    tool = tool_of(pashlib)
    before = wakeups(tool), wakeups(process.pid)
    time.sleep(3.0)
    # The hold on the NAT's mapping is looked at now and then.
    assert wakeups(tool) - before[0] <= 20, "it was hundreds"
    assert wakeups(process.pid) == before[1]
    process.terminate()
    process.communicate(timeout=30)


def test_a_tool_has_a_session_of_its_own(pashlib: Path, served: dict[str, str]) -> None:
    """Linux gives each session its share of the processors: the engine keeps its own."""
    os.mkfifo(pashlib.parent / "f")
    process = waiting(pashlib, served, "recv*s*1*0*f")
    tool = int(tool_of(pashlib))
    assert os.getsid(tool) == tool
    process.terminate()
    process.communicate(timeout=30)


def test_who_waits_meets_though_the_machines_store_dies(
    pashlib: Path, served: dict[str, str]
) -> None:
    for fifo in ("a", "b"):
        os.mkfifo(pashlib.parent / fifo)
    receiver = waiting(pashlib, served, "recv*d*1*0*b")
    engine_pid = int(read(Path(f"/proc/{tool_of(pashlib)}/stat")).split()[3])
    forks = read(Path(f"/proc/{engine_pid}/task/{engine_pid}/children")).split()
    dispatcher = min(int(fork) for fork in forks)
    os.kill(dispatcher, signal.SIGKILL)
    for key, fifo in (("d", "b"), ("e", "c")):  # the one that waited, and two that come later
        if key == "e":
            os.mkfifo(pashlib.parent / "c")
            receiver = start(pashlib, served, "recv*e*1*0*c")
        sender = start(pashlib, served, f"send*{key}*0*1*a")
        feeder = subprocess.Popen(["bash", "-c", "echo hello > a"], cwd=pashlib.parent)
        got = subprocess.run(
            ["cat", fifo], cwd=pashlib.parent, capture_output=True, timeout=30, check=True
        ).stdout
        assert got == b"hello\n"
        for process in (sender, receiver, feeder):
            process.communicate(timeout=30)
            assert process.returncode == 0
    # Another one, where somebody has asked since; the tools' own forks end after their callers.
    children = Path(f"/proc/{engine_pid}/task/{engine_pid}/children")
    wait_until(lambda: len(read(children).split()) <= 1)


def test_a_connection_that_waits_holds_few_descriptors(
    pashlib: Path, served: dict[str, str]
) -> None:
    """What the caller handed over for it is closed when it has been opened."""
    names = [f"f{n}" for n in range(12)]
    for name in names:
        os.mkfifo(pashlib.parent / name)
    process = start(pashlib, served, *(f"recv*{name}*1*0*{name}" for name in names))
    assert process.stderr is not None
    for _ in names:
        assert process.stderr.readline().startswith(b"Get local_addr")
    held = len(list(Path(f"/proc/{tool_of(pashlib)}/fd").iterdir()))
    assert held <= descriptors.PROCESS + (descriptors.WAITING + descriptors.PORTS) * len(names)
    process.terminate()
    process.communicate(timeout=30)


def test_too_many_connections_for_its_descriptors_are_refused_with_the_number(
    pashlib: Path, alone: dict[str, str]
) -> None:
    limit = 70
    connections = [f"recv*k{n}*1*0*f{n}" for n in range(10)]
    for name in range(10):
        os.mkfifo(pashlib.parent / f"f{name}")
    needed = descriptors.needed(len(connections))
    prefix = ("bash", "-c", f'ulimit -n {limit}; exec "$@"', "-")
    process = start(pashlib, alone, *connections, prefix=prefix)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"10 connections need {needed} open files, and this process may have {limit}" in (
        errors.decode()
    )


def test_a_failed_sibling_shows_in_the_exit_code_only(pashlib: Path, env: dict[str, str]) -> None:
    for name in ("a", "b"):
        os.mkfifo(pashlib.parent / name)
    sender = start(pashlib, env, "send*s1*0*1*a", "send*s2*0*1*missing")
    receiver = start(pashlib, env, "recv*s1*1*0*b")
    writer = subprocess.Popen(["bash", "-c", "seq 100000 > a"], cwd=pashlib.parent)
    got = subprocess.run(
        ["cat", "b"], cwd=pashlib.parent, capture_output=True, timeout=60, check=True
    ).stdout
    _, errors = sender.communicate(timeout=60)
    receiver.communicate(timeout=60)
    assert writer.wait(10) == 0
    assert sender.returncode == 2
    assert b"missing" in errors
    # The marker of the missing FIFO travels on: that stream is whole, but its node has failed.
    assert got == subprocess.run(["seq", "100000"], capture_output=True, check=True).stdout


def test_a_killed_tool_is_not_success(pashlib: Path, served: dict[str, str]) -> None:
    os.mkfifo(pashlib.parent / "f")
    process = start(pashlib, served, "recv*z*1*0*f")
    assert process.stderr is not None
    process.stderr.readline()
    (tool,) = (p for p in Path("/proc").iterdir() if is_worker_of(p, pashlib.parent))
    os.kill(int(tool.name), signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 137
    assert b"killed" in errors


def test_without_its_engine_the_tool_runs_by_itself(pashlib: Path, alone: dict[str, str]) -> None:
    move(pashlib, alone | {"PUNCH_ENGINE": "nobody-is-here"}, "alone")


def test_early_callers_wait_for_the_engine(pashlib: Path, served: dict[str, str]) -> None:
    move(pashlib, served, "early")


def test_sigterm_before_the_tool_has_begun(pashlib: Path, served: dict[str, str]) -> None:
    """The engine is still importing, or goes away: neither a crash nor a second start."""
    os.mkfifo(pashlib.parent / "f")
    early = start(pashlib, served, "recv*e*1*0*f")
    time.sleep(0.1)
    early.terminate()
    _, errors = early.communicate(timeout=30)
    assert early.returncode in (143, -signal.SIGTERM)  # the latter: it had not even started
    assert b"killed" not in errors
    nobody = f"nobody-{served['PUNCH_ENGINE']}"
    with engine._listen(nobody):
        queued = start(pashlib, served | {"PUNCH_ENGINE": nobody}, "recv*e*1*0*f")
        time.sleep(0.3)
        queued.terminate()
        time.sleep(0.1)
    _, errors = queued.communicate(timeout=30)
    assert queued.returncode in (143, -signal.SIGTERM)
    assert b"Get local_addr" not in errors
