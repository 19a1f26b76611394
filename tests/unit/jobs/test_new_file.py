"""A result that is a file: whole or not there, and nothing is left of one that was not kept."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from punchlib.jobs.new_file import NewFile

_KILLED = """
import os, signal, sys
from pathlib import Path
from punchlib.jobs.new_file import NewFile
NewFile(Path(sys.argv[1])).out.write(b"half")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(params=["without a name", "beside its target"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "beside its target":
        real = os.open

        def refuse(path: Any, flags: int, *rest: Any, **kw: Any) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "Operation not supported", path)
            return real(path, flags, *rest, **kw)

        monkeypatch.setattr(os, "open", refuse)
    return str(request.param)


def test_it_appears_whole_with_the_usual_rights(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    target.write_text("what was there")
    before = os.umask(0o027)
    try:
        new = NewFile(target)
        new.out.write(b"all")
        assert target.read_text() == "what was there"
        assert len(list(tmp_path.iterdir())) == (1 if kind == "without a name" else 2)
        new.keep()
    finally:
        os.umask(before)
    new.drop()  # which changes nothing any more
    assert target.read_bytes() == b"all"
    assert target.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.usefixtures("kind")
def test_what_is_not_kept_is_gone(tmp_path: Path) -> None:
    new = NewFile(tmp_path / "out")
    new.out.write(b"half")
    new.drop()
    assert list(tmp_path.iterdir()) == []


def test_who_is_killed_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, tmp_path / "out"], check=False)
    assert done.returncode == -9
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        NewFile(tmp_path / "nowhere" / "out")
