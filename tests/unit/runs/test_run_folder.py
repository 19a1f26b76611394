"""What is kept of runs, and how it is found again."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from punchlib.errors import UsageError
from punchlib.runs import run_folder
from punchlib.runs.run_folder import RunFolder
from punchlib.runs.timeline import Moment


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return run_folder.runs_root()


def test_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_folder.runs_root() == tmp_path / ".local/state/punch/runs"


def test_a_run_is_kept(root: Path) -> None:
    folder = RunFolder(root, "r1")
    assert run_folder.load_report(folder.path) == {}, "it still runs"
    folder.record([Moment(2.0, "b", "y"), Moment(1.0, "", "x")])
    assert [m.event for m in run_folder.load_moments(folder.path)] == ["x", "y"]
    folder.end({"v": 1, "ok": True})
    assert run_folder.load_report(folder.path) == {"v": 1, "ok": True}
    assert (folder.path.stat().st_mode & 0o777, sorted(p.name for p in folder.path.iterdir())) == (
        0o700,
        ["events.jsonl", "run.json"],
    )


def test_several_may_look_whether_it_goes_on(root: Path) -> None:
    folder = RunFolder(root, "r1")
    assert run_folder.goes_on(folder.path)
    folder.end({"v": 1})
    with (folder.path / "events.jsonl").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not run_folder.goes_on(folder.path)


def test_it_is_found(root: Path) -> None:
    for name in ("20260101T1", "20260102T1", "20260102T12"):
        RunFolder(root, name)
    assert run_folder.find().name == "20260102T12"
    assert run_folder.find("20260101").name == "20260101T1"
    assert run_folder.find("20260102T1").name == "20260102T1"
    assert run_folder.find(str(root / "20260102T1")).name == "20260102T1"
    for name, why in (
        ("2026", "3 runs begin with '2026'"),
        ("1999", "no run '1999' is kept"),
        ("/no/where", "'/no/where' is not a run's folder"),
    ):
        with pytest.raises(UsageError, match=why):
            run_folder.find(name)


def test_none_is_there(root: Path) -> None:
    with pytest.raises(UsageError, match="no run is kept in"):
        run_folder.find()
    assert run_folder.load_moments(root / "none") == []


def test_the_oldest_go(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "KEPT", 3)
    for number in range(5):
        RunFolder(root, f"r{number}")
    assert [p.name for p in run_folder.all_runs()] == ["r4", "r3", "r2"]


@pytest.mark.parametrize("text", ["{", "[]", '{"v": 2}'])
def test_no_report(root: Path, text: str) -> None:
    folder = RunFolder(root, "r1")
    (folder.path / "run.json").write_text(text)
    with pytest.raises(UsageError, match=r"run\.json"):
        run_folder.load_report(folder.path)


def test_a_full_disk_ends_no_run(root: Path) -> None:
    folder = RunFolder(root, "r1")
    (folder.path / "events.jsonl").unlink()
    for name in ("events.jsonl", "run.json.new"):
        (folder.path / name).symlink_to("/dev/full")
    folder.record([Moment(1.0, "", "x")])
    folder.end({"v": 1})
    assert run_folder.load_report(folder.path) == {}
