"""Which run is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from punchlib.errors import UsageError
from punchlib.jobs import run_folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    root = run_folder.runs_root()
    for name in ("20260101T000000Z-aa", "20260101T000000Z-ab", "20260102T000000Z-aa"):
        (root / name).mkdir(parents=True)
    return root


def test_the_latest_a_name_a_beginning_and_a_path(root: Path, tmp_path: Path) -> None:
    assert run_folder.find().name == "20260102T000000Z-aa"
    assert run_folder.find("20260102").name == "20260102T000000Z-aa"
    assert run_folder.find("20260101T000000Z-ab") == root / "20260101T000000Z-ab"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "run.json").touch()
    assert run_folder.find(str(elsewhere)) == elsewhere


@pytest.mark.parametrize(
    ("name", "message"),
    [("2026", "3 runs begin with '2026'"), ("x\x1b", r"no run 'x\\x1b'")],
)
def test_what_is_not_clear_is_refused(name: str, message: str, root: Path) -> None:
    with pytest.raises(UsageError) as error:
        run_folder.find(name)
    assert message in error.value.message
    assert "20260102T000000Z-aa" in error.value.next_step


def test_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="holds no runs"):
        run_folder.find()
