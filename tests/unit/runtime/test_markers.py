"""Failure markers: what is written comes back, and a disk that is full hides none."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.errors import Cause
from punchlib.runtime import markers, state
from punchlib.runtime.markers import Marker
from tests.support.privilege import MODES_APPLY

ONE_LINE = st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), min_size=1)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(ONE_LINE, TEXT, st.sampled_from([state.OWN, state.STOPPED, state.REPORTED]), ONE_LINE)
def test_what_is_written_comes_back(component: str, reason: str, kind: str, origin: str) -> None:
    marker = Marker(component, reason, kind, origin)
    assert Marker.decode(marker.encode()) == marker
    # A spare file has room behind the lines.
    assert Marker.decode(marker.encode().ljust(9000, b"\n")) == marker


@given(st.binary(max_size=200))
def test_any_file_is_a_failure(content: bytes) -> None:
    assert Marker.decode(content).summary


def test_what_travels_is_the_first_cause() -> None:
    own = Marker("s3-get", "no such key", origin="worker1")
    assert own.cause == Cause("s3-get: no such key", "worker1")
    reported = Marker("pashlib k recv", own.cause.reason, state.REPORTED, own.cause.origin)
    assert reported.cause == own.cause
    assert reported.told == "node worker1 reports: s3-get: no such key"
    nobody = Marker("pashlib k recv", own.cause.reason, state.REPORTED)
    assert nobody.told == "the peer reports: s3-get: no such key"


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def remove_failures(folder: Path) -> None:
    shutil.rmtree(folder / "failures")


def close(folder: Path) -> None:
    (folder / "failures").chmod(0o500)
    (folder / "spare").chmod(0o500)
    folder.chmod(0o500)


def put_files_in_place(folder: Path) -> None:
    for name in ("failures", "spare"):
        shutil.rmtree(folder / name)
        (folder / name).touch()


@pytest.mark.parametrize("harm", [remove, remove_failures, close, put_files_in_place])
def test_a_folder_that_was_spoiled_is_a_failure_to_its_readers(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """Without a word from anybody: it may be what kept them from speaking."""
    folder = tmp_path / "state"
    state.prepare_folder(str(folder))
    assert markers.failures([str(folder)]) == []
    harm(folder)
    code = f"from punchlib.runtime import markers; print(len(markers.failures([{str(folder)!r}])))"
    assert int(told(code)) > 0


@pytest.mark.parametrize("harm", [remove, remove_failures, close, put_files_in_place])
def test_a_failure_in_a_spoiled_folder_is_known(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    folder = tmp_path / "state"
    state.prepare_folder(str(folder))
    harm(folder)
    code = (
        "from punchlib.runtime import markers, state; state.mark_failed('x', 'why');"
        f" print(len(markers.failures([{str(folder)!r}])))"
    )
    assert int(told(code, PUNCH_STATE_DIR=str(folder))) > 0


def told(code: str, **env: str) -> str:
    """What Python prints as a user to whom modes mean something."""
    done = subprocess.run(
        [*MODES_APPLY, sys.executable, "-c", code],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FULL = """
mount -t tmpfs -o {options} none "$1" && cd "$1"
export PUNCH_STATE_DIR=$1/state
{python} -c 'from punchlib.runtime import state; state.prepare_folder(state.given())' || exit 3
{fill}
for i in 1 2 3 4 5 6 7 8; do
    {python} -c 'from punchlib.runtime import state; state.mark_failed("x", "reason number '$i'")'
done
{python} -c 'import os; from punchlib.runtime import markers
for found in markers.of_our_script(): print(found.summary)
print(oct(os.stat(os.environ["PUNCH_STATE_DIR"]).st_mode))'
"""
BLOCKS = ("size=128k", "cat /dev/zero > fill 2>/dev/null")
INODES = ("nr_inodes=40", "for i in $(seq 100); do : > fill$i; done 2>/dev/null")


@pytest.mark.parametrize(("options", "fill"), [BLOCKS, INODES], ids=["blocks", "inodes"])
def test_a_full_disk(tmp_path: Path, options: str, fill: str) -> None:
    script = FULL.format(options=options, fill=fill, python=sys.executable)
    done = subprocess.run(
        ["unshare", "-Urm", "bash", "-c", script, "bash", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    said = done.stdout.splitlines()
    # The first ones have room that was kept for them.
    assert said[: state.SPARES] == [f"x: reason number {i + 1}" for i in range(state.SPARES)]
    # Those that had none are failures all the same.
    assert len(said) >= state.SPARES + 2
    if options == INODES[0]:
        assert int(said[-1], 8) & stat.S_ISVTX, done
