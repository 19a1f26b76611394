"""`punch sh` as a user meets it: the result on stdout, and one message for each bad input."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.jobtools import processes, wait_until
from tests.support.tiers import quick

PUNCH = [sys.executable, "-m", "punchlib.cli.main", "sh"]
TEXT = b"b a\nc b\na a\n" * 2000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in.txt").write_bytes(TEXT)
    (tmp_path / "nul").write_bytes(b"a\0b\na\n")
    (tmp_path / "old").write_bytes(b"old\n")
    (tmp_path / "folder").mkdir()
    return tmp_path


def punch(
    folder: Path, *args: str, stdin: bytes | None = None, **env: str
) -> subprocess.CompletedProcess[bytes]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    scratch = Path(tempfile.mkdtemp(prefix="scratch-"))
    done = subprocess.run(
        [*PUNCH, *args],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        cwd=folder,
        env={**clean, "TMPDIR": str(scratch), **env},
        timeout=100,
        check=False,
    )
    wait_until(lambda: not processes(str(scratch)))
    assert list(scratch.iterdir()) == []
    scratch.rmdir()
    return done


def test_the_result_on_stdout_and_the_rest_on_stderr(folder: Path) -> None:
    done = punch(folder, "--local", "--width", "2", "cat in.txt | sort | uniq -c | sort -rn")
    assert (done.returncode, done.stdout) == (0, b"   2000 c b\n   2000 b a\n   2000 a a\n")
    assert b"the job went well" in done.stderr


def test_stdin_and_a_file_that_holds_the_pipeline(folder: Path) -> None:
    (folder / "count.sh").write_text("# how many\nWHAT=a\ncut -c 3 | grep -c $WHAT\n")
    done = punch(folder, "--local", "-q", "count.sh", stdin=TEXT)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"4000\n", b"")


def test_into_a_file_and_never_over_one(folder: Path) -> None:
    line = "sort -u in.txt >old"
    done = punch(folder, "--local", "-q", line)
    assert done.returncode == 2
    assert b"old exists" in done.stderr
    assert (folder / "old").read_bytes() == b"old\n"
    done = punch(folder, "--local", "-q", "--force", line)
    assert (done.returncode, done.stdout) == (0, b"")
    assert (folder / "old").read_bytes() == b"a a\nb a\nc b\n"


def test_an_object_at_home(folder: Path) -> None:
    line = "cat s3://any/k=1.txt | wc -l"
    done = punch(folder, "--local", "-q", "--put", "k=1.txt=in.txt", line)
    assert (done.returncode, done.stdout) == (0, b"6000\n"), done.stderr


def test_explain_and_emit(folder: Path) -> None:
    done = punch(
        folder, "--local", "--width", "4", "--explain", "--emit", "job", "cat in.txt | sort | nl"
    )
    assert done.returncode == 0
    how = done.stdout.decode().splitlines()
    assert how[1].split("  ")[-1].startswith("on each piece, then joined: ")
    assert how[2].endswith("in one piece: nl: it counts lines from the first")
    names = {p.name for p in (folder / "job").iterdir()}
    assert names == {"job.toml", "last.sh", *(f"worker{n}.sh" for n in range(1, 5))}
    again = next(
        line for line in (folder / "job/last.sh").read_text().splitlines() if "again" in line
    )
    words = again.replace("DIR", "job").split()[4:]
    ran = subprocess.run(
        [*PUNCH[:-1], "run", "--local", *words], cwd=folder, capture_output=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    expected = subprocess.run(
        ["bash", "-c", "cat in.txt | sort | nl"], cwd=folder, capture_output=True, check=True
    )
    assert ran.stdout == expected.stdout
    assert punch(folder, "--local", "--emit", "job", "sort in.txt").returncode == 2


@pytest.mark.parametrize(
    "case",
    quick(
        [
            (["--width", "0", "sort"], "--width 0"),
            (["--width", "10000", "sort"], "--width 10000"),
            (["cat in.txt | | sort"], "line 1"),
            (["sort none.txt"], "none.txt cannot be read: No such file"),
            (["sort folder"], "folder cannot be read: Is a directory"),
            (["sort /dev/zero"], "no regular file"),
            ([], "there is no pipeline"),
            (["--commands", "none.toml", "sort"], "none.toml cannot be read"),
            (["--prove", "none.toml"], "none.toml cannot be read"),
            (["cat in.txt >folder"], "folder is a folder"),
            (["cat in.txt >none/out"], "does not exist"),
            (["cat s3://b/k"], "--put k=FILE"),
            (["sort in.txt >s3://b/k"], "write > FILE"),
            (["sort s3://b"], "s3://BUCKET/KEY"),
            (["--put", "x", "sort"], "KEY=FILE"),
            (["comm - in.txt <none.txt"], "none.txt"),
        ],
        8,
    ),
)
def test_bad_input(case: tuple[list[str], str], folder: Path) -> None:
    args, said = case
    done = punch(folder, "--local", *args)
    assert done.returncode == 2
    assert said in done.stderr.decode()
    said_lines = done.stderr.splitlines()
    assert [line.startswith(b"error: ") for line in said_lines].count(True) == 1
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


def test_a_command_that_is_not_there(folder: Path) -> None:
    done = punch(folder, "--local", "-q", "sort in.txt | no-such-command")
    assert done.returncode == 2
    assert b"no-such-command, a stage of last, is not on this machine" in done.stderr


def test_commands_of_ones_own(folder: Path) -> None:
    entry = "[[command]]\nclass = 'stateless'\nwords = ['env', 'LC_ALL=C', 'sed', '%s']\n"
    (folder / "mine.toml").write_text(entry % "s/a/A/")
    line = "cat in.txt | env LC_ALL=C sed s/a/A/"
    state = str(folder / "state")
    asked = ("--commands", "mine.toml", "--explain", line)
    told = punch(folder, *asked, XDG_STATE_HOME=state).stdout
    assert told.endswith(b"in one piece: not proven: punch sh --prove\n")
    done = punch(folder, "--prove", "mine.toml", XDG_STATE_HOME=state)
    assert (done.returncode, done.stdout) == (0, b"proven: env LC_ALL=C sed s/a/A/\n"), done.stderr
    told = punch(folder, *asked, XDG_STATE_HOME=state).stdout
    assert told.endswith(b"on each piece: each line by itself\n")
    (folder / "mine.toml").write_text(entry % "2d")
    done = punch(folder, "--prove", "mine.toml", XDG_STATE_HOME=state)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"error: env LC_ALL=C sed 2d is not the same on pieces\n")
    assert b"Traceback" not in done.stderr


def test_without_a_bucket(folder: Path) -> None:
    done = punch(folder, "sort in.txt")
    assert done.returncode == 2
    assert b"AWS_BUCKET is not set" in done.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("grep a nul >new", b"say grep -a"),
        ("cat in.txt | awk 'BEGIN {exit 3}' >new", b"ended with status 3"),
    ],
)
def test_a_stage_that_fails(line: str, said: bytes, folder: Path) -> None:
    done = punch(folder, "--local", "-q", "--width", "2", line)
    assert (done.returncode, done.stdout) == (1, b"")
    assert said in done.stderr
    assert not (folder / "new").exists()


def test_a_reader_that_leaves(folder: Path) -> None:
    (folder / "large").write_bytes(b"some line\n" * 200_000)
    done = subprocess.run(
        ["bash", "-c", f"{' '.join(PUNCH)} --local -q 'cat large | grep .' | head -n 1; "
         'exit "${PIPESTATUS[0]}"'],
        cwd=folder, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (141, b"some line\n")
    assert done.stderr == b""
