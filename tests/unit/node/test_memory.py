"""What the kernel tells of memory, in the forms of both versions of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from punchlib.node import memory


@pytest.fixture(params=["v1", "v2", "none"])
def group(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(memory, "_V2", tmp_path)
    monkeypatch.setattr(memory, "_V1", tmp_path / "memory")
    (tmp_path / "memory").mkdir()
    if request.param == "v2":
        (tmp_path / "memory.events").write_text("low 0\nhigh 0\noom 3\noom_kill 2\n")
        (tmp_path / "memory.max").write_text("268435456\n")
    if request.param == "v1":
        text = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"
        (tmp_path / "memory/memory.oom_control").write_text(text)
        (tmp_path / "memory/memory.limit_in_bytes").write_text("268435456\n")
    return str(request.param)


def test_kills_are_told(group: str) -> None:
    told = 0 if group == "none" else 2
    assert memory.oom_kills() == told
    assert memory.killed_note(told) == ""
    if told:
        note = memory.killed_note(1)
        assert "the node has 256 MB" in note
        assert "MemorySize=512" in note


def test_no_limit(group: str, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.limit() == 0
    (tmp_path / "memory.max").unlink()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory.limit() == 0


def test_this_machine() -> None:
    assert memory.oom_kills() >= 0
    assert memory.limit() >= 0
