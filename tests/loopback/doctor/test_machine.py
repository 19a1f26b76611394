"""What the machine lacks is really lacking: small limits, a full /tmp, another user's engine."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from punchlib.doctor import machine
from punchlib.doctor.finding import Finding, Level
from punchlib.net import descriptors
from punchlib.runtime import engine, engine_client

NOBODY = 65534
ROOT = Path(__file__).parents[3]
#: Finds one thing in a process of its own, and prints it.
_FIND = (
    "import json, sys; sys.path.insert(0, sys.argv[1]);"
    "from punchlib.doctor import machine;"
    "exec(sys.argv[3]);"
    "print(json.dumps(getattr(machine, sys.argv[2])().to_json()))"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, or becomes another user")


def find(
    what: str,
    *,
    limits: dict[int, int] | None = None,
    user: int | None = None,
    before: str = "",
    wrap: tuple[str, ...] = (),
    **env: str,
) -> Finding:
    def confine() -> None:
        for limit, value in (limits or {}).items():
            resource.setrlimit(limit, (value, value))

    if user is not None:
        # When all is imported: this Python may be closed to others.
        before = f"import os; os.setgid({user}); os.setuid({user})\n{before}"
    done = subprocess.run(
        [*wrap, sys.executable, "-c", _FIND, str(ROOT), what, before],
        env={**os.environ, **env},
        cwd="/",
        capture_output=True,
        text=True,
        preexec_fn=confine,
        check=True,
    )
    return Finding.from_json(json.loads(done.stdout))


def test_this_machine_is_well() -> None:
    """It runs all the other tests."""
    found = list(machine.examine())
    names = "system, open files, processes, memory, /tmp, FIFOs, pipes, engine"
    assert [f.name for f in found] == names.split(", ")
    assert not [f for f in found if f.level is Level.FAIL]


@pytest.mark.parametrize(
    ("files", "level", "text"),
    [
        (descriptors.needed(1) - 1, Level.FAIL, "too few for a single connection"),
        (descriptors.needed(10), Level.WARN, "enough for 10 connections of one pashlib"),
        (1024, Level.OK, "enough for 298 connections of one pashlib"),
    ],
)
def test_open_files(files: int, level: Level, text: str) -> None:
    found = find("open_files", limits={resource.RLIMIT_NOFILE: files})
    assert (found.level, text in found.what) == (level, True), found
    assert ("ulimit -Hn" in found.next_step) is (level is not Level.OK)


def test_no_limit_on_files_is_at_once() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert machine.open_files().what.startswith("no limit" if hard == -1 else f"{hard:,}")


@needs_root
def test_few_processes() -> None:
    found = find("processes", limits={resource.RLIMIT_NPROC: 20}, user=NOBODY)
    assert found.level is Level.FAIL
    assert "this user may have 20" in found.what
    assert "ulimit -u" in found.next_step


def test_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is moved, as the memory cannot be."""
    assert "MB free" in machine.memory().what
    monkeypatch.setattr(machine, "LITTLE_MEMORY", 1 << 60)
    assert machine.memory().level is Level.WARN
    monkeypatch.setattr(machine, "NO_MEMORY", 1 << 60)
    assert machine.memory().level is Level.FAIL


@pytest.fixture
def tmp() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def on_a_disk(folder: Path, options: str, then: str = ":") -> tuple[str, ...]:
    """Runs the rest of a command with a small disk mounted on the folder."""
    mount = f'mount -t tmpfs -o {options} none "$0" && {then} && exec "$@"'
    return ("unshare", "-m", "sh", "-c", mount, str(folder))


@needs_root
def test_a_full_tmp(tmp: Path) -> None:
    full = 'head -c 2000000 /dev/zero >"$0/x" 2>/dev/null || true; true'
    found = find("room_in_tmp", wrap=on_a_disk(tmp, "size=1m", full), TMPDIR=str(tmp))
    assert found.level is Level.FAIL
    assert str(tmp) in found.what + found.next_step
    assert "make room" in found.next_step


@needs_root
def test_little_room_in_tmp(tmp: Path) -> None:
    found = find("room_in_tmp", wrap=on_a_disk(tmp, "size=20m"), TMPDIR=str(tmp))
    assert found.level is Level.WARN
    assert "21 MB free" in found.what
    few = find("room_in_tmp", wrap=on_a_disk(tmp, "size=900m,nr_inodes=20"), TMPDIR=str(tmp))
    assert few.level is Level.WARN
    assert "more files" in few.what


@needs_root
def test_no_fifo_can_be_made_where_tmp_is_read_only() -> None:
    wrap = on_a_disk(Path("/tmp"), "size=1m,ro")
    for what in ("fifos", "room_in_tmp"):
        found = find(what, wrap=wrap, TMPDIR="")
        assert found.level is Level.FAIL
        assert "Read-only file system" in found.what


@needs_root
def test_pipes_stay_small_where_the_users_share_is_used_up() -> None:
    """64 MiB of pipes, by default (fs.pipe-user-pages-soft)."""
    hold = (
        "import fcntl, os\n"
        "held = [os.pipe()]\n"
        "while fcntl.fcntl(held[-1][1], fcntl.F_GETPIPE_SZ) == 65536:\n"
        "    held.append(os.pipe())\n"
    )
    many = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    found = find("large_pipes", before=hold, user=NOBODY, limits={resource.RLIMIT_NOFILE: many})
    assert found.level is Level.WARN
    assert "fs.pipe-user-pages-soft" in found.next_step


def test_an_engine_that_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(engine_client.ENGINE, raising=False)
    assert "none is named here" in machine.engine().what
    with engine.spawn() as name:
        monkeypatch.setenv(engine_client.ENGINE, name)
        found = machine.engine()
    assert found.level is Level.OK
    assert "it serves; a call took" in found.what
    gone = machine.engine()
    assert gone.level is Level.WARN
    assert "there is none: Connection refused" in gone.what


@needs_root
def test_an_engine_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"punch-test-{os.urandom(8).hex()}"
    code = f"""
import os, socket
os.setuid({NOBODY})
s = socket.socket(socket.AF_UNIX); s.bind("\\0{name}"); s.listen(); print(flush=True); s.accept()
"""
    stranger = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert stranger.stdout is not None
    stranger.stdout.readline()
    monkeypatch.setenv(engine_client.ENGINE, name)
    found = machine.engine()
    stranger.kill()
    stranger.wait()
    stranger.stdout.close()
    assert found.level is Level.WARN
    assert f"user {NOBODY} listens" in found.what


def failing(error: Exception) -> Callable[[], tuple[int, float]]:
    def call() -> Any:
        raise error

    return call


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (failing(subprocess.TimeoutExpired("x", 10)), "does not serve a call"),
        (lambda: (137, 0.1), "status 137"),
    ],
)
def test_an_engine_that_hangs_or_dies(
    call: Callable[[], tuple[int, float]], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"punch-test-{os.urandom(8).hex()}"
    monkeypatch.setenv(engine_client.ENGINE, name)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0{name}")
        sock.listen()
        found = machine.engine(call)
    assert found.level is Level.WARN
    assert text in found.what
