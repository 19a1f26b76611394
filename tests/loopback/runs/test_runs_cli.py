"""`punch runs`, `punch logs`, `punch clean`: of runs that are over, and that are not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from punchlib.runs.run_folder import RunFolder
from punchlib.runs.timeline import Moment

PUNCH = [sys.executable, "-m", "punchlib.cli.main"]
TEXT = [
    Moment(0.5, "", "run.started", {"punch.job": "/jobs/sort \x1b[31m", "punch.local": True}),
    Moment(2.0, "b", "log", {"log.text": "second \x1b]0;x"}),
    Moment(1.0, "a", "log", {"log.text": "first"}),
    Moment(1.5, "a", "stage.started", {"process.executable.name": "r_split"}),
]
REPORT = {
    "v": 1,
    "ok": True,
    "began": 1764141600.0,
    "elapsed_s": 4.25,
    "job": "/jobs/sort",
    "nodes": [{}, {}],
    "cost": {"total": 0.0123},
}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "punch/runs"


def punch(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PUNCH, *args],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def kept(root: Path, run: str, report: dict[str, object] | None = None) -> RunFolder:
    folder = RunFolder(root, run)
    folder.record(TEXT)
    if report:
        folder.end(report)
    return folder


def killed(root: Path, run: str) -> None:
    """A run whose process has died without a word."""
    if (pid := os.fork()) == 0:
        try:
            kept(root, run)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def test_runs(state: Path) -> None:
    kept(state, "20260101-a", REPORT)
    kept(state, "20260102-b", {**REPORT, "ok": False, "cost": None})
    kept(state, "20260103-c")
    (state / "20260104-d").mkdir()
    (state / "20260104-d/run.json").write_text("{")
    killed(state, "20260105-e")
    done = punch("runs", TZ="UTC")
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = [line.split() for line in done.stdout.splitlines()]
    assert head == ["RUN", "TIME", "DURATION", "JOB", "STATUS", "NODES", "COST"]
    assert lines == [
        ["20260105-e", "?", "?", "sort", "\\x1b[31m", "killed", "0", "?"],
        ["20260104-d", "?", "?", "?", "?", "0", "?"],
        ["20260103-c", "?", "?", "sort", "\\x1b[31m", "running", "0", "?"],
        *[
            [run, "2025-11-26", "07:20:00", "4.2", "s", "sort", status, "2", cost]
            for run, status, cost in (
                ("20260102-b", "failed", "?"),
                ("20260101-a", "ok", "$0.01"),
            )
        ],
    ]
    told = json.loads(punch("runs", "--json", "-n", "3").stdout)
    assert [(r["run"], r["status"]) for r in told["runs"]] == [
        ("20260105-e", "killed"),
        ("20260104-d", "?"),
        ("20260103-c", "running"),
    ]


def test_no_runs(state: Path) -> None:
    assert punch("runs").returncode == 0
    done = punch("logs")
    assert done.returncode == 2
    assert "no run is kept in" in done.stderr


def test_logs(state: Path) -> None:
    kept(state, "20260101-a", REPORT)
    done = punch("logs")
    assert done.stdout == "   1.000 s  a: first\n   2.000 s  b: second \\x1b]0;x\n"
    assert punch("logs", "2026", "--node", "a").stdout == "   1.000 s  a: first\n"
    assert (
        "1.500 s  a: stage.started process.executable.name=r_split"
        in punch("logs", "--events").stdout
    )
    done = punch("logs", "--node", "c")
    assert done.returncode == 2
    assert "has no node 'c'\n  next: it has a, b" in done.stderr


def test_logs_of_a_run_that_goes_on(state: Path) -> None:
    folder = kept(state, "20260101-a")

    def go_on() -> None:
        time.sleep(2)
        folder.record([Moment(3.0, "a", "log", {"log.text": "third"})])
        folder.end(REPORT)

    thread = threading.Thread(target=go_on)
    thread.start()
    done = punch("logs", "--follow")
    thread.join()
    assert [line.split()[-1] for line in done.stdout.splitlines()] == [
        *("first", "\\x1b]0;x", "third")
    ]


def test_clean(state: Path) -> None:
    kept(state, "20260101-a", REPORT)
    kept(state, "20260102-b", {**REPORT, "began": time.time()})
    running = kept(state, "20260103-c")
    killed(state, "20260104-d")
    done = punch("clean", "--older", "1")
    assert "removed 2 runs" in done.stderr
    assert sorted(p.name for p in state.iterdir()) == ["20260102-b", "20260103-c"]
    punch("clean")
    assert [p.name for p in state.iterdir()] == ["20260103-c"], "it still runs"
    assert inspect_of("20260103-c").startswith("20260103-c runs")
    running.end(REPORT)
    assert inspect_of("20260103-c").startswith("20260103-c went well after 4.2 s")


def inspect_of(run: str) -> str:
    return punch("inspect", run).stdout
