"""`punch run` as a user meets it: exit codes, JSON, signals, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.jobgen import sort_job
from tests.support.jobtools import lasting_job, processes, wait_until
from tests.support.texts import english
from tests.support.tiers import quick

PUNCH = [sys.executable, "-m", "punchlib.cli.main"]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Ours without AWS, and a folder for temporary files in which anything left is seen."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    return {**env, "TMPDIR": str(folder), **more}


@pytest.fixture
def scratch() -> Path:
    """Below /tmp, and short."""
    return Path(tempfile.mkdtemp(prefix="scratch-"))


def punch(scratch: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PUNCH, *args],
        env=environment(scratch, **env),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def assert_nothing_left(scratch: Path) -> None:
    wait_until(lambda: not processes(str(scratch)))
    assert list(scratch.iterdir()) == []
    scratch.rmdir()


def test_a_job_and_its_report(scratch: Path, tmp_path: Path) -> None:
    job = sort_job(2)
    job.write(tmp_path / "job")
    text = english(300_000, seed=5)
    (tmp_path / "in").write_bytes(text)
    done = punch(
        *(scratch, "run", "--local", "--json", str(tmp_path / "job")),
        *("--put", f"{job.inputs[0]}={tmp_path / 'in'}"),
        *("--get", f"{job.output}={tmp_path / 'out'}"),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == b"".join(sorted(text.splitlines(keepends=True)))
    report = json.loads(done.stdout)
    assert (report["v"], report["ok"]) == (1, True)
    assert {n["id"]: n["place"] for n in report["nodes"]} == {
        "splitter": "ec2",
        "merger": "ec2",
        "worker1": "lambda",
        "worker2": "lambda",
    }
    assert all(n["ok"] and n["returncode"] == 0 for n in report["nodes"])
    assert report["outputs"] == [
        {"key": job.output, "file": str(tmp_path / "out"), "bytes": len(text)}
    ]
    assert done.stderr == ""
    assert_nothing_left(scratch)


def test_the_result_on_stdout_and_the_rest_on_stderr(scratch: Path, tmp_path: Path) -> None:
    script = (
        "echo chatter; printf 'b\\na\\n' | sort | python3.9 aws/s3-put-object.py 'a=b c' /dev/stdin"
    )
    (tmp_path / "one.sh").write_text(script)
    done = punch(scratch, "run", "--local", str(tmp_path), "--get", "a=b c=-")
    assert (done.returncode, done.stdout) == (0, "a\nb\n"), done.stderr
    assert "ended well" in done.stderr
    assert_nothing_left(scratch)


@pytest.mark.parametrize("signum", quick([signal.SIGINT, signal.SIGTERM], 1))
def test_a_signal_ends_everything(signum: signal.Signals, scratch: Path, tmp_path: Path) -> None:
    lasting_job(tmp_path)
    process = subprocess.Popen(
        [*PUNCH, "run", "--local", str(tmp_path)],
        env=environment(scratch),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: [p for p in processes(str(scratch)) if _runs(p, "sort")])
    process.send_signal(signum)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 128 + signum
    assert f"stopped by {signum.name}" in stderr
    assert "Traceback" not in stderr
    assert_nothing_left(scratch)


def test_punch_itself_is_killed(scratch: Path, tmp_path: Path) -> None:
    """Nobody is left to clean up; yet every process ends."""
    lasting_job(tmp_path)
    process = subprocess.Popen(
        [*PUNCH, "run", "--local", str(tmp_path)],
        env=environment(scratch),
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: [p for p in processes(str(scratch)) if _runs(p, "sort")])
    process.kill()
    process.wait()
    wait_until(lambda: not processes(str(scratch)))
    shutil.rmtree(scratch)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        pytest.param(["run", "JOB"], 2, "AWS_BUCKET is not set", id="no bucket"),
        pytest.param(["run", "nowhere"], 2, "nowhere is not a folder", id="no folder"),
        pytest.param(["run", "JOB", "--put", "key"], 2, "--put 'key' is not KEY=FILE", id="put"),
        pytest.param(
            ["run", "JOB", "--local", "--put", "k=none"], 2, "none is not a file", id="no input"
        ),
        pytest.param(["run", "BROKEN", "--local"], 2, "has no reader", id="fifo"),
        pytest.param(["run"], 2, "DIR", id="no argument"),
        pytest.param(["fly"], 2, "fly", id="no such command"),
    ],
)
def test_wrong_use(args: list[str], code: int, message: str, scratch: Path, tmp_path: Path) -> None:
    for name, text in (("JOB", "true"), ("BROKEN", "mkfifo /tmp/f; cat x >/tmp/f")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.sh").write_text(text)
    args = [str(tmp_path / a) if a in ("JOB", "BROKEN") else a for a in args]
    done = punch(scratch, *args)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert_nothing_left(scratch)


def test_an_error_as_json(scratch: Path, tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("echo went wrong >&2; exit 3")
    done = punch(scratch, "run", "--local", "--json", str(tmp_path))
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert (report["v"], report["ok"], report["error"]["exit_code"]) == (1, False, 1)
    assert report["error"]["message"].startswith("node a (lambda) failed: its script exited 3")
    assert report["nodes"][0]["returncode"] == 3
    assert report["nodes"][0]["stderr_tail"] == "went wrong\n"
    assert_nothing_left(scratch)


def test_a_job_key_is_nowhere_to_be_seen(scratch: Path, tmp_path: Path) -> None:
    """It is in the environment of the script, and neither in arguments nor in what is printed."""
    (tmp_path / "a.sh").write_text(
        "test ${#PUNCH_JOB_KEY} = 64 || exit 9\n"
        'printf %s "$PUNCH_JOB_KEY" >/tmp/key\n'
        "grep -l -f /tmp/key /proc/[0-9]*/cmdline && exit 8\n"
        "python3.9 aws/s3-put-object.py key /tmp/key"
    )
    done = punch(scratch, "--debug", "run", "--local", str(tmp_path), "--get", f"key={tmp_path}/k")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "k").read_text() not in done.stderr
    assert_nothing_left(scratch)


def _runs(pid: int, name: str) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == name
    except OSError:
        return False
