"""What is laid out, and that its launchers start whatever the interpreter's path looks like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from punchlib.errors import UsageError
from punchlib.runtime import layout

RUNTIME = {
    "r_split", "r_wrap", "r_unwrap", "r_merge", "dgsh-tee", "sh-reduce", "split", "auto-split.sh",
    "pashlib", "wait_for_output_and_sigpipe_rest.sh", "lib", "punch-commit",
}  # fmt: skip
AWS = {
    "s3-get-object.py", "s3-put-object.py", "s3-shard-reader.py", "s3-shard-reader-direct.py",
    "s3-chunk-reader-approx-correction.py", "s3-chunk-reader-smart-prealigned.py",
    "s3-chunk-reader-approx-tail-coord.py", "invoke-lambda.py", "s3-read-several.py",
    "s3-put-piece.py",
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
    layout.lay_out(tmp_path, layout.here(str(python)))
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
        layout.lay_out(tmp_path, layout.here("/it's here/python 3"))


def test_the_command_line(tmp_path: Path) -> None:
    assert layout.main([str(tmp_path / "top")]) == 0
    assert layout.main(["--bin", str(tmp_path / "bin")]) == 0
    assert layout.main(["--pashlib", str(tmp_path / "pashlib")]) == 0
    assert (tmp_path / "top" / "runtime" / "r_split").exists()
    assert (tmp_path / "bin" / "python3.9").exists()
    assert (tmp_path / "pashlib").stat().st_mode & 0o111
    assert layout.main([]) == 2
    assert layout.main(["--pashlib", str(tmp_path / "no" / "folder")]) == 1


def test_what_the_user_had_there_is_kept_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = {
        "runtime/r_split": b"\x7fELF theirs, a hole punch",
        "aws/invoke-lambda.py": b"print('theirs')\n",
    }
    for name, content in theirs.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    pashlib = tmp_path / "pashlib"
    pashlib.write_bytes(b"\x7fELF the old program")

    layout.lay_out(tmp_path)
    layout.write_pashlib(pashlib)
    said = capsys.readouterr().err.splitlines()
    layout.lay_out(tmp_path)  # again: everything there is ours now
    layout.write_pashlib(pashlib)
    layout.lay_out_bin(tmp_path / "bin")
    layout.lay_out_bin(tmp_path / "bin")

    assert len(said) == 3 and any("r_split.before-punch" in line for line in said)
    assert capsys.readouterr().err == ""
    for name, content in theirs.items():
        assert (tmp_path / f"{name}.before-punch").read_bytes() == content
        assert (tmp_path / name).read_bytes() != content
    assert (tmp_path / "pashlib.before-punch").read_bytes() == b"\x7fELF the old program"
    kept = {p.name for p in tmp_path.rglob("*.before-punch")}
    assert kept == {"r_split.before-punch", "invoke-lambda.py.before-punch", "pashlib.before-punch"}


def test_what_the_user_made_of_ours_is_kept_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each time; the first that was kept is never lost."""
    script = tmp_path / "runtime" / layout.WAIT_SCRIPT
    layout.lay_out(tmp_path)
    ours = script.read_text()
    for change in ("mine\n", "and again\n"):
        script.write_text(ours + change)
        layout.lay_out(tmp_path)
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert script.read_text() == ours
    kept = [script.with_name(script.name + end) for end in (".before-punch", ".before-punch.2")]
    assert [k.read_text() for k in kept] == [ours + "mine\n", ours + "and again\n"]
