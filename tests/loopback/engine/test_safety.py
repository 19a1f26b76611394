"""The engine and its callers where something is wrong: another user, a full machine, silence."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchlib.runtime import engine
from punchlib.runtime.layout import lay_out
from tests.support.jobtools import wait_until

NOBODY = 65534


@pytest.fixture
def base(tmp_path: Path) -> dict[str, str]:
    lay_out(tmp_path / "top")
    return {
        "PATH": os.environ["PATH"],
        "PUNCH_STATE_DIR": str(tmp_path / "state"),
        "AWS_BUCKET": "bucket",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SECRET_ACCESS_KEY": "a-secret",
    }


@pytest.fixture
def served(base: dict[str, str]) -> Iterator[dict[str, str]]:
    with engine.spawn(base) as name:
        yield base | {"PUNCH_ENGINE": name}


def put_command(tmp_path: Path) -> list[str]:
    """A tool that needs no network: s3-put to /dev/null reads its source to the end."""
    tool = tmp_path / "top/aws/s3-put-object.py"
    return [sys.executable, str(tool), "/dev/null", "/dev/stdin"]


def put(env: dict[str, str], tmp_path: Path, *wrapper: str) -> subprocess.CompletedProcess[bytes]:
    """Runs it to its end, by another program if one is given."""
    command = [*wrapper, *put_command(tmp_path)]
    return subprocess.run(command, env=env, input=b"data", capture_output=True, timeout=60)


def connect(env: dict[str, str]) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect("\0" + env["PUNCH_ENGINE"])
    return connection


def engine_pid(env: dict[str, str]) -> int:
    """The child of ours that listens under the name in this environment."""
    (found,) = (pid for pid in children(os.getpid()) if listens(pid, env))
    return found


def heir_pid(env: dict[str, str]) -> int:
    """Who serves in its place from when it has had time to import boto3."""
    parent = engine_pid(env)
    # The first is the machine's store, which has the listener too until it has closed it.
    (found,) = wait_until(lambda: [p for p in children(parent)[1:] if listens(p, env)])
    return found


def listens(pid: int, env: dict[str, str]) -> bool:
    """Does that process hold the engine's listener?"""
    name = f" @{env['PUNCH_ENGINE']}"
    known = Path("/proc/net/unix").read_text().splitlines()
    # Listening, not accepted: the flag is __SO_ACCEPTCON.
    listening = (x.split() for x in known if x.endswith(name) and x.split()[3] == "00010000")
    sockets = {f"socket:[{fields[6]}]" for fields in listening}
    held = set()
    with contextlib.suppress(FileNotFoundError):  # it has ended
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                held.add(fd.readlink().name)
    return bool(sockets & held)


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def up(env: dict[str, str], tmp_path: Path) -> int:
    """Waits until it serves; its pid."""
    assert put(env, tmp_path).returncode == 0
    return engine_pid(env)


@pytest.mark.skipif(os.getuid() != 0, reason="takes another user's identity")
@pytest.mark.parametrize("answer", [b"", b"\0\0"])
def test_another_users_engine_gets_nothing(
    base: dict[str, str], tmp_path: Path, answer: bytes
) -> None:
    """Who binds the name first used to get the job key, credentials, stderr and the FIFOs."""
    name = f"punch-squatted-{os.urandom(6).hex()}"
    heard_read, heard_write = os.pipe()
    ready_read, ready_write = os.pipe()
    squatter = os.fork()
    if squatter == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind("\0" + name)
                listener.listen(8)
                os.write(ready_write, b"!")
                while True:
                    connection, _ = listener.accept()
                    data, fds = b"", list[int]()
                    with contextlib.suppress(OSError):  # it has left again
                        connection.send(answer)
                        data, fds, _, _ = socket.recv_fds(connection, 1 << 20, 250)
                    os.write(heard_write, b"%d bytes, %d descriptors\n" % (len(data), len(fds)))
        finally:
            os._exit(1)
    os.close(heard_write)
    os.read(ready_read, 1)
    try:
        done = put(base | {"PUNCH_ENGINE": name}, tmp_path)
        assert (done.returncode, done.stderr) == (0, b""), "it does the work itself"
        assert os.read(heard_read, 1000) == b"0 bytes, 0 descriptors\n"
    finally:
        os.kill(squatter, signal.SIGKILL)
        os.waitpid(squatter, 0)
        for fd in (heard_read, ready_read, ready_write):
            os.close(fd)


@pytest.mark.skipif(os.getuid() != 0, reason="takes another user's identity")
def test_another_user_is_not_served(served: dict[str, str], tmp_path: Path) -> None:
    up(served, tmp_path)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            connection = connect(served)
            connection.settimeout(10)
            code = 0 if connection.recv(1) == b"" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_engine_that_takes_no_call_on_is_done_without(
    base: dict[str, str], tmp_path: Path
) -> None:
    """It closes at once, as one that cannot fork: the tool runs, once, in the caller."""
    name = f"punch-closing-{os.urandom(6).hex()}"
    with engine._listen(name) as listener:
        child = os.fork()
        if child == 0:
            while True:
                listener.accept()[0].close()
        try:
            done = put(base | {"PUNCH_ENGINE": name}, tmp_path)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert (done.returncode, done.stderr) == (0, b"")


def test_callers_who_say_nothing_hold_nobody_up(served: dict[str, str], tmp_path: Path) -> None:
    pid = up(served, tmp_path)
    idle = [connect(served) for _ in range(100)]
    idle[0].send(b"\0")  # and one that says nearly nothing
    started = time.monotonic()
    assert put(served, tmp_path).returncode == 0
    assert time.monotonic() - started < engine.REQUEST_TIME / 2
    for connection in idle:
        connection.close()
    assert Path(f"/proc/{pid}").exists()


def test_a_full_table_of_descriptors_neither_ends_it_nor_makes_it_spin(
    served: dict[str, str], tmp_path: Path
) -> None:
    pid = up(served, tmp_path)
    limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, limit[1]))
    with connect(served), connect(served):
        before = cpu(pid)
        time.sleep(1.5)
        assert cpu(pid) - before < 0.3
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
        assert put(served, tmp_path).returncode == 0
    assert engine_pid(served) == pid


def test_its_heir_may_be_killed_while_a_tool_runs(served: dict[str, str], tmp_path: Path) -> None:
    """What the heir had forked held what told its death; all later calls hung as long."""
    parent, heir = up(served, tmp_path), heir_pid(served)
    with contextlib.ExitStack() as tools:

        def by_the_heir() -> subprocess.Popen[bytes] | None:
            before = [*children(heir), *children(parent)]
            tool = subprocess.Popen(put_command(tmp_path), env=served, stdin=subprocess.PIPE)
            tools.callback(tool.communicate, timeout=30)
            # Until the heir is ready the engine forks.
            wait_until(lambda: len([*children(heir), *children(parent)]) > len(before))
            return tool if children(heir) else None

        running = wait_until(by_the_heir)
        assert running is not None
        os.kill(heir, signal.SIGKILL)
        assert put(served, tmp_path).returncode == 0
        assert running.poll() is None
    assert running.returncode == 0


def test_its_store_may_die_with_a_question_unread() -> None:
    """The kernel says that by a reset where others end; it ended the engine."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        assert not engine._hung_up(ours)
        ours.send(b"a question")
        theirs.close()
        assert engine._hung_up(ours)


def test_what_it_cannot_enter_the_caller_does(served: dict[str, str], tmp_path: Path) -> None:
    """It had said that it does; then the call failed without a marker."""
    up(served, tmp_path)
    # Nothing can take on a variable without a name.
    done = put(served, tmp_path, "env", "=x")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "request_",
    [
        b"\xff" * 8,  # gigabytes
        (5).to_bytes(4, sys.byteorder) + (0).to_bytes(4, sys.byteorder) + b"ab\0\0c",
        (3).to_bytes(4, sys.byteorder) + (6).to_bytes(4, sys.byteorder) + b"\0\0\0",
        b"\0" * 4096,
    ],
)
def test_what_is_no_request_leaves_nothing_behind(
    served: dict[str, str], tmp_path: Path, request_: bytes
) -> None:
    # Both, for either may be the one that serves; with what the engine keeps of its heir.
    both = up(served, tmp_path), heir_pid(served)

    def held() -> int:
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in both)

    before = held()
    for _ in range(5):
        with connect(served) as connection:
            connection.send(request_)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(20)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(100):
                    pass
    assert put(served, tmp_path).returncode == 0
    # On a busy machine the last caller's fork may still be on its way, then as before.
    wait_until(lambda: held() <= before)


def cpu(pid: int) -> float:
    """Seconds of processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
