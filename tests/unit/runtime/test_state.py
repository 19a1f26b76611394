"""The state folder: markers and pending puts, and whose they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from punchlib.runtime import markers, state
from punchlib.runtime.markers import Marker
from tests.support.privilege import MODES_APPLY

MARK = (
    "from punchlib.runtime import state;"
    " state.mark_failed({!r}, 'why');"
    " print(state.scope().folders[0])"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("PUNCH_STATE_DIR", str(folder))
    state.prepare_folder(state.given())
    return folder


@pytest.mark.parametrize("before", [None, 0o000, 0o755])
def test_a_umask_closes_no_state_folder(before: int | None, tmp_path: Path) -> None:
    """By hand all scripts of a user have theirs in one: closed, it would fail every later tool."""
    root = tmp_path / "root"
    if before is not None:
        root.mkdir()
        root.chmod(before)
    program = (
        "import os, sys; from punchlib.runtime import state; state.root = lambda: sys.argv[1];"
        "[state.prepare_folder(f'{sys.argv[1]}/{n}') for n in '12'];"
        "state.write(f'{sys.argv[1]}/1/pending/new', b'x');"
        "assert os.umask(0) == 0o777"
    )
    command = [*MODES_APPLY, sys.executable, "-c", program, str(root)]
    subprocess.run(command, check=True, umask=0o777)
    for path in (root, *root.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_markers_come_back_in_order(folder: Path) -> None:
    assert markers.of_our_script() == []
    state.mark_failed("first", 'a "reason"\nof two lines')
    state.mark_failed("second", "b")
    assert markers.of_our_script() == [
        Marker("first", 'a "reason"\nof two lines'),
        Marker("second", "b"),
    ]
    assert markers.failures([str(folder)]) == markers.of_our_script()


def test_a_marker_that_cannot_be_left_hides_no_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUNCH_STATE_DIR", "/proc/nowhere")
    state.mark_failed("any", "reason")


def test_stages_of_one_script_share_a_folder_and_two_scripts_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PUNCH_STATE_DIR", raising=False)
    stage = f'{sys.executable} -c "$1" & wait $!'
    command = ["bash", "-c", f"{stage}; {stage}; exit 0", "bash", MARK.format("x")]
    one, other = (
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        for _ in range(2)
    )
    assert one[0] == one[1]
    assert other[0] == other[1]
    assert one[0] != other[0]
    for folder in (one[0], other[0]):
        shutil.rmtree(folder)


def test_calls_from_a_program_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUNCH_STATE_DIR", raising=False)
    command = [sys.executable, "-c", MARK.format("x")]
    folders = {subprocess.run(command, check=True, capture_output=True).stdout for _ in range(2)}
    assert len(folders) == 2
    for folder in folders:
        shutil.rmtree(folder.decode().strip())


@pytest.mark.parametrize("stage", ["{ %s; } &", "( %s ) &", "( ( cd /; %s; true ) ) &", "%s &"])
@pytest.mark.parametrize(
    "name", ["script.sh", "$PWD/script.sh", "./sub/../script.sh", "<script.sh"]
)
def test_the_shells_that_will_judge(name: str, stage: str, tmp_path: Path) -> None:
    """However the script was named, and where `cd` has led since: a subshell no longer has it open,
    and what its parent reads is its own text too."""
    look = (
        "from punchlib.runtime.script_shell import lineage;"
        " seen = lineage(); print(len(seen.sourcing), *seen.awaited)"
    )
    stage %= f'{sys.executable} -c "{look}"'
    (tmp_path / "sub").mkdir()
    (tmp_path / "script.sh").write_text(
        f"{stage}\nwait\necho $$\n# wait_for_output_and_sigpipe_rest.sh\n"
    )
    done = subprocess.run(
        ["bash", "-c", f"bash {name.replace('$PWD', str(tmp_path))}; exit"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        check=True,
        capture_output=True,
        text=True,
    )
    seen, script = done.stdout.splitlines()
    count, *awaited = seen.split()
    assert int(count) >= 1
    # What is in brackets ignores no signals; there nobody can tell (Standing.UNSURE).
    assert stage[0] == "(" or awaited[-1].startswith(f"{script}-")


#: Starts a driver that outlives its session's leader, as `nohup driver &` and a log-out do.
ORPHANED = """
import os, subprocess, sys
if not os.fork():
    os.setsid()
    if not os.fork():
        os._exit(subprocess.run(["bash", "driver.sh"]).returncode)
    os._exit(0)
"""


def test_scripts_of_an_orphaned_driver_do_not_meet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The driver is a shell of their session, and not their script."""
    monkeypatch.delenv("PUNCH_STATE_DIR", raising=False)
    (tmp_path / "stage.py").write_text(MARK.format("x"))
    stage = f"{sys.executable} stage.py"
    (tmp_path / "script.sh").write_text(
        f"{stage} & wait $!; exit 0\n# wait_for_output_and_sigpipe_rest.sh\n"
    )
    program = f"import subprocess; subprocess.run({stage.split()!r})"
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "driver.sh").write_text(
        "sleep 0.3\n"  # until the leader of its session has ended
        f"(bash script.sh; bash script.sh; {sys.executable} program.py; {stage}) >out.new\n"
        "mv out.new out\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", ORPHANED], cwd=tmp_path, env=environment, check=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    folders = (tmp_path / "out").read_text().split()
    assert len(set(folders)) == len(folders) == 4
    # The failures of scripts and programs are not the driver's own.
    assert len(markers.failures(folders[3:])) == 1


def test_a_process_looks_once_for_each_folder_that_it_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It walks through its parents, and hundreds of connections ask."""
    monkeypatch.setattr(state, "_kept", None)
    monkeypatch.setenv("PUNCH_STATE_DIR", str(tmp_path / "a"))
    first = state.scope()
    assert first.place == str(tmp_path / "a")
    assert state.scope() is first
    monkeypatch.setenv("PUNCH_STATE_DIR", str(tmp_path / "b"))
    assert state.scope().place == str(tmp_path / "b")


#: Says that it runs, and dies by that signal, exits, or ends as tools do.
BEGINS = (
    "import os; from punchlib.runtime import state; state.begin('tee');"
    " state.entries(os.environ['PUNCH_STATE_DIR']) or os._exit(9); {}"
)


@pytest.mark.parametrize(
    ("end", "found"),
    [
        ("os.kill(os.getpid(), 9)", ["it was killed, or ended without a word"]),
        ("os._exit(0)", ["it was killed, or ended without a word"]),
        ("state.end('tee', 0)", []),
        ("state.end('tee', 141)", []),
        ("state.end('tee', 3)", ["it ended with status 3"]),
        ("state.mark_failed('tee', 'why'); state.end('tee', 3)", ["why"]),
        ("state.begin('tee'); state.end('tee', 0)", []),
    ],
)
def test_who_has_begun_must_end(folder: Path, end: str, found: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", BEGINS.format(end)], check=False)
    assert done.returncode in (0, -9)
    markers_left = markers.of_our_script()
    assert [m.component for m in markers_left] == ["tee"] * len(found)
    assert [m.reason.partition(" (pid")[0] for m in markers_left] == found


def test_who_still_runs_is_dismissed_and_the_dead_are_not(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", BEGINS.format("os._exit(0)")], check=True)
    lives = [sys.executable, "-c", BEGINS.format("print(flush=True); input()")]
    with subprocess.Popen(lives, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert len(state.entries(str(folder))) == 2
        assert len(markers.of_our_script()) == 1
        state.dismiss(str(folder))
        assert len(state.entries(str(folder))) == 1
        process.communicate(b"\n")
    assert len(markers.of_our_script()) == 1


def test_forks_of_the_engine_know_each_other_and_nobody_else_does(folder: Path) -> None:
    """Their names are those of another /proc: to others they neither live nor are dead."""
    fork = f"state.adopt(state.Scope({str(folder)!r}, False, state.script_shell.lineage()));"
    begins = BEGINS.replace("state.begin", fork + " state.begin").format("os._exit(0)")
    subprocess.run([sys.executable, "-c", begins], check=True)
    assert state.entries(str(folder))[0].startswith(state.IN_ENGINE)
    assert markers.of_our_script() == []
    looks = f"from punchlib.runtime import markers, state; {fork} print(markers.of_our_script())"
    seen = subprocess.run([sys.executable, "-c", looks], check=True, capture_output=True).stdout
    assert b"it was killed" in seen


def test_on_a_full_disk_who_begins_takes_room_that_was_kept(tmp_path: Path) -> None:
    code = BEGINS.format("print(*state.entries(os.environ['PUNCH_STATE_DIR']))")
    # 1 for the root, 1 + 5 for the folder, 5 for what is kept: none is left.
    script = (
        'mount -t tmpfs -o nr_inodes=12 none "$1" && export PUNCH_STATE_DIR="$1/state" || exit 3\n'
        f'for i in 1 2 3 4 5; do {sys.executable} -c "$2"; done\n'
    )
    done = subprocess.run(
        ["unshare", "-Urm", "bash", "-c", script, "bash", str(tmp_path), code],
        capture_output=True,
        text=True,
        check=False,
    )
    # Who finds none left does not begin.
    assert done.stdout.count(".tee") == 1 + 2 + 3 + 4, done.stderr
    assert done.stderr.count("No space left on device") == 1
