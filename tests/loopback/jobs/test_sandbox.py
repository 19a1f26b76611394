"""The sandbox as root and as an unprivileged user."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from punchlib.node import sandbox
from tests.support.jobtools import processes, wait_until
from tests.support.privilege import MODES_APPLY

#: Below the folder.
SANDBOX = "punchlib/node/sandbox.py"
NOBODY = 65534


@pytest.fixture(params=["ourselves", "nobody"])
def user(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """How to start a process as this user."""
    if request.param == "nobody" and os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    yield {"user": NOBODY, "group": NOBODY} if request.param == "nobody" else {}


@pytest.fixture
def folder(user: dict[str, Any]) -> Iterator[Path]:
    """A folder of that user below /tmp, with a copy of punchlib that it can read."""
    path = Path(tempfile.mkdtemp(prefix="sandbox-"))
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(sandbox.__file__).parents[1], path / "punchlib", ignore=ignored)
    for name in ("tmp", "kept"):
        (path / name).mkdir()
    (path / "kept/file").write_text("kept")
    (path / "pashlib").write_text("#!/bin/sh\necho our pashlib\n")
    (path / "pashlib").chmod(0o755)
    for entry in (path, *path.rglob("*")):
        if user:
            os.chown(entry, NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


def python() -> str:
    """An interpreter that anybody may run: ours may lie in a closed home."""
    system = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    return system or sys.executable


def run(
    folder: Path, user: dict[str, Any], script: str, *options: str
) -> subprocess.CompletedProcess[str]:
    command = [python(), "-I", "-S", str(folder / SANDBOX), *options, "--"]
    return subprocess.run(
        [*command, "bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd="/",
        **user,
    )


def test_a_tmp_of_its_own(folder: Path, user: dict[str, Any]) -> None:
    new = Path("/tmp", f"{folder.name}-new")
    done = run(
        *(folder, user, f"ls /tmp {folder}; cat {folder}/kept/file; echo new >{new}; id -u"),
        *("--tmp", str(folder / "tmp"), "--keep", str(folder / "kept"), "--keep", "/usr"),
    )
    uid = user.get("user", os.getuid())
    assert done.stdout == f"/tmp:\n{folder.name}\n\n{folder}:\nkept\nkept{uid}\n", done.stderr
    assert (folder / "tmp" / new.name).read_text() == "new\n"
    assert not new.exists()


def test_pashlib_in_opt_and_what_was_there(folder: Path, user: dict[str, Any]) -> None:
    before = sorted(p.name for p in Path("/opt").iterdir())
    done = run(folder, user, "/opt/pashlib; ls /opt", "--pashlib", str(folder / "pashlib"))
    assert done.stdout.splitlines()[0] == "our pashlib", done.stderr
    assert done.stdout.split()[2:] == sorted({*before, "pashlib"})
    assert sorted(p.name for p in Path("/opt").iterdir()) == before


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("true", 0)])
def test_its_exit_status(script: str, code: int, folder: Path, user: dict[str, Any]) -> None:
    assert run(folder, user, script).returncode == code


def test_a_command_that_is_not_there(folder: Path) -> None:
    command = [sys.executable, str(folder / SANDBOX), "--", "no-such-command"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (127, "sandbox: no-such-command is not there\n")


def test_a_command_behind_a_closed_folder(folder: Path, user: dict[str, Any]) -> None:
    (folder / "closed").mkdir(mode=0)
    (folder / "plain-file").write_text("echo")
    prefix = () if user else MODES_APPLY
    sandboxed = [*prefix, python(), "-I", "-S", str(folder / SANDBOX), "--"]
    for command, code, said in (
        ("no-such-command", 127, "no-such-command is not there"),
        ("plain-file", 126, "plain-file: Permission denied"),
    ):
        done = subprocess.run(
            [*sandboxed, command],
            env={**os.environ, "PATH": f"{folder}/closed:{folder}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
            **user,
        )
        assert (done.returncode, done.stderr) == (code, f"sandbox: {said}\n")
    (folder / "closed").chmod(0o700)  # so that it can be removed


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_it(signum: signal.Signals, folder: Path, user: dict[str, Any]) -> None:
    mark = f"PUNCH_TEST_MARK={folder.name}"
    script = "setsid sleep 600 & (trap '' HUP; sleep 600) & sleep 600"
    process = subprocess.Popen(
        [python(), "-I", "-S", str(folder / SANDBOX), "--", "bash", "-c", script],
        env={**os.environ, "PUNCH_TEST_MARK": folder.name},
        cwd="/",
        **user,
    )
    wait_until(lambda: len(processes(mark)) >= 5)
    process.send_signal(signum)
    process.wait(10)
    wait_until(lambda: not processes(mark))


def test_sigterm_is_heard_inside(folder: Path, user: dict[str, Any]) -> None:
    script = "trap 'echo heard; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        [python(), "-I", "-S", str(folder / SANDBOX), "--", "bash", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        **user,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    rest, _ = process.communicate(timeout=10)
    assert (rest, process.returncode) == ("heard\n", 5)


def test_this_machine_makes_sandboxes() -> None:
    assert sandbox.refusal() is None
