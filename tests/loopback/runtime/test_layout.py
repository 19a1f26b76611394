"""What is laid out, and that its launchers start whatever the interpreter's path looks like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from punchlib.errors import UsageError
from punchlib.runtime import layout

RUNTIME = {
    "r_split", "r_wrap", "r_unwrap", "r_merge", "dgsh-tee", "split", "auto-split.sh", "pashlib",
    "wait_for_output_and_sigpipe_rest.sh", "lib", "punch-commit",
}  # fmt: skip
AWS = {
    "s3-get-object.py", "s3-put-object.py", "s3-shard-reader.py", "s3-shard-reader-direct.py",
    "s3-chunk-reader-approx-correction.py", "s3-chunk-reader-smart-prealigned.py",
    "s3-chunk-reader-approx-tail-coord.py", "invoke-lambda.py",
}  # fmt: skip


def test_everything_is_there_and_executable(top: Path) -> None:
    assert {p.name for p in (top / "runtime").iterdir()} == RUNTIME
    assert {p.name for p in (top / "aws").iterdir()} == AWS
    files = [p for p in [*(top / "runtime").iterdir(), *(top / "aws").iterdir()] if p.is_file()]
    assert all(p.stat().st_mode & 0o111 == 0o111 for p in files)


@pytest.mark.parametrize("folder", ["with space", "x" * 200])
def test_any_interpreter_path_works(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    python = tmp_path / folder / "python3"
    python.symlink_to(sys.executable)
    layout.lay_out(tmp_path, str(python))
    layout.lay_out_bin(tmp_path / "bin", str(python))
    for command in (["runtime/r_unwrap"], [f"{tmp_path}/bin/python3.9", "-c", "pass"]):
        done = subprocess.run(command, cwd=tmp_path, input=b"", capture_output=True, timeout=20)
        assert (done.returncode, done.stderr) == (0, b"")
    done = subprocess.run(
        [tmp_path / "bin" / "python3.9", "aws/s3-get-object.py"],
        cwd=tmp_path, capture_output=True, timeout=20,
    )  # fmt: skip
    assert done.returncode == 2


def test_a_path_that_no_shebang_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="quote"):
        layout.lay_out(tmp_path, "/it's here/python 3")


def test_the_command_line(tmp_path: Path) -> None:
    assert layout.main([str(tmp_path / "top")]) == 0
    assert layout.main(["--bin", str(tmp_path / "bin")]) == 0
    assert layout.main(["--pashlib", str(tmp_path / "pashlib")]) == 0
    assert (tmp_path / "top" / "runtime" / "r_split").exists()
    assert (tmp_path / "bin" / "python3.9").exists()
    assert (tmp_path / "pashlib").stat().st_mode & 0o111
    assert layout.main([]) == 2
    assert layout.main(["--pashlib", str(tmp_path / "no" / "folder")]) == 1
