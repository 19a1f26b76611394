"""A job's `[result]`: the machine that runs the job receives it, to stdout or into a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.jobtools import processes, wait_until

SCRIPT = """\
#!/bin/bash
D=/tmp/pash_R/0123456789abcdef
mkdir -p $D; rm -f $D/a; mkfifo $D/a
{{ {stage} >$D/a & }}
pids_to_kill="${{!}} ${{pids_to_kill}}"
{{ /opt/pashlib send*the-result*0*1*$D/a & }}
pids_to_kill="${{!}} ${{pids_to_kill}}"
source runtime/wait_for_output_and_sigpipe_rest.sh ${{pids_to_kill}}
( exit "${{internal_exec_status}}" )
"""
PUNCH = [sys.executable, "-m", "punchlib.cli.main", "run", "--local"]


def job(folder: Path, stage: str) -> Path:
    (folder / "job").mkdir()
    (folder / "job/only.sh").write_text(SCRIPT.format(stage=stage))
    (folder / "job/job.toml").write_text(
        '[nodes.only]\nplace = "lambda"\n[result]\nconnection = "the-result"\n'
    )
    (folder / "tmp").mkdir()
    return folder / "job"


def punch(folder: Path, *args: str, shell: str = "") -> subprocess.CompletedProcess[bytes]:
    """Runs the job; afterwards nothing of it is left."""
    command = ["bash", "-c", f'"$@" {shell}', "bash", *PUNCH, str(folder / "job"), *args]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "tmp")},
        timeout=100,
        check=False,
    )
    wait_until(lambda: not processes(str(folder / "tmp")))
    assert list((folder / "tmp").iterdir()) == []
    assert not list(folder.glob("*.part-*"))
    assert b"Traceback" not in done.stderr
    return done


def test_to_stdout_byte_for_byte(tmp_path: Path) -> None:
    job(tmp_path, "head -c 3000000 /dev/zero")
    done = punch(tmp_path)
    assert (done.returncode, done.stdout) == (0, bytes(3_000_000)), done.stderr
    assert b"the result has 3,000,000 bytes" in done.stderr


def test_into_a_file_when_all_has_gone_well(tmp_path: Path) -> None:
    job(tmp_path, "printf 'a\\nb'")
    (tmp_path / "out").write_text("old")
    done = punch(tmp_path, "--result", "out", "--json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == b"a\nb"
    assert b'"bytes": 3' in done.stdout


def test_a_stage_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    job(tmp_path, "bash -c 'head -c 300000 /dev/zero; kill -9 $$'")
    (tmp_path / "out").write_text("old")
    done = punch(tmp_path, "--result", "out")
    assert done.returncode == 1
    assert b"node only (lambda) failed" in done.stderr
    assert (tmp_path / "out").read_text() == "old"


def test_the_end_is_not_said_for_who_closes_its_stdout_before_it_fails(tmp_path: Path) -> None:
    """GNU's tools close it, then exit: between the two a sender sees an end, and no status."""
    job(tmp_path, "bash -c 'echo a; exec >&-; sleep 0.7; exit 3'")
    done = punch(tmp_path, "--result", "out")
    assert done.returncode == 1
    assert b"the input is not whole" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    job(tmp_path, "yes")
    done = punch(tmp_path, shell='| head -n 2; exit "${PIPESTATUS[0]}"')
    assert (done.returncode, done.stdout) == (141, b"y\ny\n"), done.stderr
    assert b"error" not in done.stderr


def test_stdout_that_cannot_be_written(tmp_path: Path) -> None:
    job(tmp_path, "head -c 300000 /dev/zero")
    done = punch(tmp_path, shell=">/dev/full")
    assert done.returncode == 1
    assert b"stdout cannot be written: No space left on device" in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--json"], b"--result FILE takes the result"),
        (["--result", "job"], b"--result job is a folder"),
        (["--result", "none/out"], b"in one that does not exist"),
        (["--result", "a-fifo"], b"--result a-fifo is no regular file"),
        (["--get", "k=/dev/null"], b"--get k=/dev/null is no regular file"),
        (["--get", "k=none/out"], b"in one that does not exist"),
    ],
)
def test_where_it_cannot_go(args: list[str], said: bytes, tmp_path: Path) -> None:
    job(tmp_path, "true")
    os.mkfifo(tmp_path / "a-fifo")
    done = punch(tmp_path, *args)
    assert done.returncode == 2
    assert said in done.stderr + done.stdout


def test_a_job_without_one(tmp_path: Path) -> None:
    (job(tmp_path, "true") / "job.toml").unlink()
    done = punch(tmp_path, "--result", "out")
    assert done.returncode == 2
    assert b"has no [result]" in done.stderr


RECEIVE = """
import sys
from pathlib import Path
from punchlib.jobs.result_stream import ResultStream
from punchlib.node.protocol import Event, Task
ResultStream("nobody-sends", Path("out")).run(Event((Task("result", "f"),), "job", "00"))
"""


def test_it_dies_with_who_waits_for_it(cloud: object, tmp_path: Path) -> None:
    """kill -9 of the runner; nothing but its folder is left, which the next run takes away."""
    ours = subprocess.Popen(
        [sys.executable, "-c", RECEIVE],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        wait_until(lambda: [p for p in processes(str(tmp_path)) if p != ours.pid])
    finally:
        ours.send_signal(signal.SIGKILL)
        ours.wait()
    wait_until(lambda: not processes(str(tmp_path)), 10)
