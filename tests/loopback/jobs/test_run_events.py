"""What a run tells, from its nodes and connections to its folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from punchlib.runs import run_folder
from punchlib.runs.timeline import Moment
from tests.support.jobgen import sort_job
from tests.support.texts import english

PUNCH = [sys.executable, "-m", "punchlib.cli.main"]


def run(folder: Path, *args: str, text: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Runs the sort of two workers, and keeps what is kept of it in `folder`."""
    job = sort_job(2)
    job.write(folder / "job")
    (folder / "in").write_bytes(text)
    return subprocess.run(
        [
            *(*PUNCH, "run", "--local", str(folder / "job")),
            *("--put", f"{job.inputs[0]}={folder / 'in'}", *args),
        ],
        env={**os.environ, "XDG_STATE_HOME": str(folder / "state")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, object], list[Moment]]:
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    found = run_folder.find()
    return run_folder.load_report(found), run_folder.load_moments(found)


def test_every_step_is_there_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = english(300_000, seed=7)
    done = run(tmp_path, text=text)
    assert done.returncode == 0, done.stderr
    report, moments = kept(tmp_path, monkeypatch)
    assert (report["ok"], report["job"], report["local"]) == (True, str(tmp_path / "job"), True)

    by_node: dict[str, list[Moment]] = {}
    for moment in moments:
        by_node.setdefault(moment.node, []).append(moment)
    assert set(by_node) == {"", "splitter", "merger", "worker1", "worker2"}
    for node in ("splitter", "merger", "worker1", "worker2"):
        names = [m.event for m in by_node[node]]
        for earlier, later in (
            ("run.node_started", "node.invoked"),
            ("node.invoked", "script.fetched"),
            ("script.fetched", "script.started"),
            ("script.started", "stage.started"),
            ("stage.ended", "script.ended"),
            ("script.ended", "node.ended"),
            ("node.ended", "run.node_ended"),
        ):
            assert names.index(earlier) < names.index(later), names
    # After it: where the time went, and what it cost.
    assert [m.event for m in by_node[""]][-3:] == ["run.ended", "run.step", "run.step"]

    # Both ends of each of the four streams say the same, and cause comes before effect.
    ends: dict[str, dict[str, dict[str, Moment]]] = {}
    for moment in moments:
        if key := moment.text("punch.key"):
            directions = ends.setdefault(key, {"send": {}, "recv": {}})
            directions[moment.text("punch.direction")][moment.event] = moment
    assert len(ends) == 4
    steps = ["connection.started", "connection.stun_answered", "connection.registered"]
    steps += ["connection.connected", "stream.first_byte", "stream.last_byte"]
    steps += ["stream.acknowledged"]
    for directions in ends.values():
        for said in directions.values():
            assert sorted(said, key=lambda e: said[e].at).index("connection.connected") > 2
            assert [said[s].event for s in steps] == steps
            assert said["connection.connected"].text("punch.route") == "host"
        sent, got = directions["send"], directions["recv"]
        assert sent["stream.last_byte"].number("punch.bytes") == got["stream.last_byte"].number(
            "punch.bytes"
        )
        assert sent["stream.first_byte"].at <= got["stream.last_byte"].at
        assert got["stream.last_byte"].at <= sent["stream.acknowledged"].at
        assert got["connection.started"].text("file.path").startswith("/tmp/pash_")
    [uploaded] = [m for m in moments if m.event == "upload.ended"]
    [loaded] = [m for m in moments if m.event == "download.ended"]
    assert uploaded.number("punch.bytes") == loaded.number("punch.bytes") == len(text)


def test_of_a_failure_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(tmp_path, "--env", "PUNCH_TIMEOUT=none")
    assert done.returncode == 1
    report, moments = kept(tmp_path, monkeypatch)
    assert report["ok"] is False
    assert "PUNCH_TIMEOUT" in str(report["error"])
    ended = Counter(
        (m.text("process.executable.name"), m.number("process.exit.code"))
        for m in moments
        if m.event == "stage.ended"
    )
    assert ended["pashlib", 2] == 4
    [end] = [m for m in moments if m.event == "run.ended"]
    assert "PUNCH_TIMEOUT" in end.text("punch.error")


def test_a_route_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(tmp_path, "--route", "s3", text=b"b\na\n")
    assert done.returncode == 0, done.stderr
    _, moments = kept(tmp_path, monkeypatch)
    routes = Counter(m.text("punch.route") for m in moments if m.event == "connection.connected")
    assert routes == {"s3": 8}


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("PUNCH_TIMEOUT", "is not NAME=VALUE"),
        ("PATH=/tmp", "'PATH' is no knob"),
        ("PUNCH_JOB_KEY=00", "'PUNCH_JOB_KEY' is no knob"),
        ("PUNCH_TIMEOUT=1\n2", "control character"),
    ],
)
def test_what_is_no_knob(tmp_path: Path, option: str, why: str) -> None:
    done = run(tmp_path, "--env", option)
    assert done.returncode == 2
    assert why in done.stderr


def test_a_home_that_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    done = run(tmp_path, "--json", text=b"b\na\n")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True
    done = run(tmp_path, text=b"b\na\n")
    assert "nothing is kept of this run" in done.stderr
