"""Every command whose stdout cannot be written: one message and status 1, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.recorded_runs import unpack
from tests.support.tiers import quick

COMMANDS = ["runs", "runs --json", "logs", "inspect", "report -o -", "--help", "run --help"]
COMMANDS += ["sh --explain 'cat a | sort'", "sh --local -q 'cat a'", "run --local --json none"]


def punch(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    program = f"{sys.executable} -m punchlib.cli.main"
    return subprocess.run(
        ["bash", "-c", f'punch() {{ {program} "$@"; }}; {line}'],
        cwd=folder,
        env={**os.environ, "XDG_STATE_HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").write_text("b\na\n")
    unpack("sort", tmp_path / "punch/runs")
    return tmp_path


@pytest.mark.parametrize("command", quick(COMMANDS, 4))
@pytest.mark.parametrize(
    ("where", "why"), [("/dev/full", "No space left on device"), ("&-", "Bad file descriptor")]
)
def test_what_cannot_be_written(command: str, where: str, why: str, folder: Path) -> None:
    done = punch(folder, f"punch {command} >{where}")
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert f"stdout cannot be written: {why}" in done.stderr


@pytest.mark.parametrize("command", ["inspect", "runs --json"])
def test_a_reader_that_has_gone(command: str, folder: Path) -> None:
    done = punch(folder, f"punch {command} | true; exit ${{PIPESTATUS[0]}}")
    assert done.returncode in (0, 1, 141)  # as far as it had come
    assert done.stderr == ""


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_the_others_closed(closed: str, folder: Path) -> None:
    done = punch(folder, f"punch sh --local -q 'sort a' {closed}")
    assert (done.returncode, done.stdout) == (0, "a\nb\n")
