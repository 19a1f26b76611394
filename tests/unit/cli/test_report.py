"""`punch report` as a user meets it: which run, where to, and what is wrong with a run's folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from punchlib.cli import main
from punchlib.runs import report_page
from tests.support.recorded_runs import unpack


@pytest.fixture
def punch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Punch:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Punch(monkeypatch, capsys)


class Punch:
    """`punch report` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Its exit status, stdout and stderr."""
        self._monkeypatch.setattr("sys.argv", ["punch", "report", *arguments])
        code = main.main()
        said = self._capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return unpack("sort", tmp_path / "state/punch/runs")


def test_the_latest_run_into_a_file_of_its_name(punch: Punch, run: Path) -> None:
    code, out, err = punch()
    assert (code, out, err) == (0, "", "wrote sort.html\n")
    assert "<title>sortw2 · sort</title>" in Path("sort.html").read_text()


def test_page_and_trace_elsewhere(punch: Punch, run: Path, tmp_path: Path) -> None:
    code, out, _ = punch("so", "-o", "-", "--trace", "t.json")
    assert code == 0
    assert "<!DOCTYPE html>" in out
    assert json.loads(Path("t.json").read_text())["traceEvents"]
    assert not Path("sort.html").exists()
    code, out, _ = punch(str(run), "--trace", "-")
    assert (code, Path("sort.html").exists()) == (0, False)
    assert json.loads(out)["displayTimeUnit"] == "ms"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nonsense"], 2, "no run"),
        (["-o", "nowhere/x.html"], 1, "nowhere/x.html cannot be written: No such file"),
        (["-o", "-", "--trace", "-"], 2, "both want stdout"),
        (["a", "b"], 2, "unexpected extra argument"),
    ],
)
def test_wrong_use(arguments: list[str], code: int, message: str, punch: Punch, run: Path) -> None:
    status, out, err = punch(*arguments)
    assert (status, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_half_an_events_jsonl_is_a_page_with_a_warning(punch: Punch, run: Path) -> None:
    events = run / "events.jsonl"
    content = events.read_bytes()
    events.write_bytes(content[: len(content) // 2 + 10] + b"\xff")
    code, out, err = punch("-o", "-")
    assert code == 0
    assert "1 of " in err
    assert "lines of events.jsonl cannot be read" in out


def test_a_newer_version_is_read_as_far_as_it_can_be(punch: Punch, run: Path) -> None:
    for file in (run / "events.jsonl", run / "run.json"):
        file.write_text(file.read_text().replace('"v": 1', '"v": 9'))
    code, out, err = punch("-o", "-")
    assert code == 0
    assert "events.jsonl is of version 9" in out
    assert err.count("is of version 9, and this punch knows 1") == 2


@pytest.mark.parametrize(
    ("file", "content", "note"),
    [
        ("run.json", None, "run.json cannot be read"),
        ("run.json", b'{"v": 1, "no', "run.json is not whole"),
        ("run.json", b"[" * 100_000, "run.json is not whole"),
        ("run.json", b"[]", "run.json is not whole"),
        ("events.jsonl", None, "the page has no timeline"),
        ("events.jsonl", b"{}\nnull\n[1\n\n", "3 of 3 lines"),
    ],
)
def test_one_of_the_two_is_enough(
    file: str, content: bytes | None, note: str, punch: Punch, run: Path
) -> None:
    (run / file).unlink()
    if content is not None:
        (run / file).write_bytes(content)
    code, out, err = punch("-o", "-")
    assert code == 0
    assert note in out
    assert note in " ".join(err.split())


def test_without_jinja_there_is_a_trace(
    punch: Punch, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    report_page._template.cache_clear()
    code, out, err = punch("-o", "-")
    assert (code, out) == (2, "")
    assert "pip install 'punchlib[report]'" in err
    code, out, _ = punch("--trace", "-")
    assert code == 0
    assert json.loads(out)["traceEvents"]


def test_a_pipe_gets_all_or_it_is_an_error(tmp_path: Path) -> None:
    run = unpack("wide", tmp_path)
    command = [sys.executable, "-m", "punchlib.cli.main", "report", str(run), "-o", "-"]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    piped = subprocess.PIPE
    whole = subprocess.run(command, env=env, capture_output=True, check=True).stdout
    assert whole.endswith(b"</html>")
    with subprocess.Popen(command, env=env, stdout=piped, stderr=piped, bufsize=0) as gone:
        assert gone.stdout and gone.stderr
        gone.stdout.read(5)
        gone.stdout.close()
        assert b"stdout cannot be written: Broken pipe" in gone.stderr.read()
    assert gone.returncode == 1


def test_nothing_at_all_is_an_error(punch: Punch, run: Path) -> None:
    (run / "run.json").write_bytes(b"")
    (run / "events.jsonl").write_bytes(b"")
    code, out, err = punch("-o", "-")
    assert (code, out) == (1, "")
    assert "holds no run that can be read" in err
    assert "next:" in err
