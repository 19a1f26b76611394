"""Folders of processes that live, that ended, and that were killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from punchlib.node import scratch

_OWNER = """
from punchlib.node import scratch
with scratch.folder("punch-test") as path:
    (path / "file").touch()
    print(path, flush=True)
    input()
"""


def _owner(tmp: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", _OWNER],
        env={"TMPDIR": str(tmp)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def test_the_next_start_removes_what_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    (tmp / "punch-test-link.locked").symlink_to(elsewhere)
    (tmp / "punch-test-file.locked").touch()
    (tmp / "other").mkdir()
    (tmp / "punch-test-of-an-earlier-release").mkdir()
    living, its = _owner(tmp)
    killed, left = _owner(tmp)
    try:
        killed.kill()
        killed.wait()
        assert (left / "file").exists()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp))
        with scratch.folder("punch-test") as ours:
            assert ours.is_dir()
            assert not left.exists()
            assert (its / "file").exists()
        assert not ours.exists()
    finally:
        living.communicate("\n")
        killed.communicate()
    assert living.returncode == 0
    assert not its.exists()
    assert (elsewhere / "kept").exists()
    assert sorted(p.name for p in tmp.iterdir()) == [
        "other",
        "punch-test-file.locked",
        "punch-test-link.locked",
        "punch-test-of-an-earlier-release",
    ]


def test_many_at_once_take_nothing_from_each_other(tmp_path: Path) -> None:
    loop = """
from punchlib.node import scratch
for _ in range(300):
    with scratch.folder("punch-test") as path:
        (path / "file").touch()
        assert (path / "file").exists()
"""
    env = {"TMPDIR": str(tmp_path)}
    running = [subprocess.Popen([sys.executable, "-c", loop], env=env) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    assert list(tmp_path.iterdir()) == []
