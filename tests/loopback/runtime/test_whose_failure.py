"""A component's failure reaches the wait script of its script, whatever stands between the two.

No state folder is given: the script is run by hand. Each stage itself ends well, so that only the
marker can say that something in it has failed.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchlib.runtime.layout import lay_out
from tests.support.privilege import MODES_APPLY

from .conftest import Bash

BY_HAND = {"PUNCH_STATE_DIR": ""}
FAILS = "$PWD/runtime/r_unwrap </etc/passwd >/dev/null"
UNWRAP = "runtime/r_unwrap </dev/null"
WAIT = """
p=$!
source runtime/wait_for_output_and_sigpipe_rest.sh $p
exit "$internal_exec_status"
"""
INSIDE = {
    "a subshell": f"( {FAILS}; true )",
    "a subshell in a subshell": f"( ( {FAILS}; true ); true )",
    "a group": f"{{ {FAILS}; true; }}",
    "a function": f"f() {{ {FAILS}; true; }}; f",
    "bash -c": f'bash -c "{FAILS}; true"',
    "sh in a script": 'bash "$D/inner.sh"',
    "a script that is run directly": '"$D/inner.sh"',
    "timeout": f'timeout 60 bash -c "{FAILS}; true"',
    "nohup": f'nohup bash -c "{FAILS}; true"',
    "a process substitution": f"cat <( {FAILS.replace('>/dev/null', '')} )",
    "a process substitution that is read": f"echo | tee >( {FAILS} ) >/dev/null; sleep 1",
    "a pipeline": f"{FAILS} | cat",
    "no environment": f'env -i PATH="$PATH" bash -c "{FAILS}; true"',
    "no standard input": f"( {FAILS}; true ) <&-",
    "nothing open": f"( exec 2>&- >&-; {FAILS}; true ) <&-",
    "xargs": f"echo {FAILS.split(maxsplit=1)[0]} | xargs -I X bash -c 'X </etc/passwd || true'",
    "a session of its own": f'setsid -w bash -c "{FAILS}; true"',
    "an orphan": f"( ( sleep 0.3; {FAILS} ) & ); sleep 2",
    "an orphan that starts late": '( bash -c "sleep 0.3; $D/inner.sh" & ); sleep 3',
}


@pytest.fixture
def inner(tmp_path: Path) -> None:
    path = tmp_path / "inner.sh"
    path.write_text(f"#!/bin/bash\n{FAILS}\ntrue\n")
    path.chmod(0o755)


@pytest.mark.parametrize("closed", ["", "exec <&-\n"], ids=["", "stdin closed"])
@pytest.mark.parametrize("stage", INSIDE.values(), ids=INSIDE)
def test_it_is_found(bash: Bash, inner: None, stage: str, closed: str) -> None:
    result = bash(f"{closed}{{ {stage} & }}{WAIT}", env=BY_HAND)
    assert result.returncode == 1, result.stderr.decode()
    assert b"a component failed: r_unwrap" in result.stderr


def test_a_script_after_it_is_another_one(bash: Bash) -> None:
    """From one shell, one after the other: what the first left is not the second's."""
    good = f"{{ true & }}{WAIT}"
    result = bash(
        f"cat > $D/bad <<'E'\n{{ ( {FAILS}; true ) & }}{WAIT}E\ncat > $D/good <<'E'\n{good}E\n"
        'bash "$D/bad"; echo $?; bash "$D/good"; echo $?',
        env=BY_HAND,
    )
    assert result.stdout == b"1\n0\n", result.stderr.decode()


@pytest.mark.parametrize("given", [True, False], ids=["given", "by hand"])
@pytest.mark.parametrize("harm", ["rm -rf {}", "rm -rf {}/failures", "chmod 500 {} {}/*"])
def test_a_state_folder_that_is_spoiled(bash: Bash, tmp_path: Path, harm: str, given: bool) -> None:
    """It is a failure, said by the wait script although no component could say anything."""
    # By its whole name: a script of the same pid may have left one, for pids come again.
    by_hand = "/tmp/.punch-$UID/$$-$(cut -d ' ' -f 22 /proc/$$/stat)"
    where = '"$PUNCH_STATE_DIR"' if given else by_hand
    cut = f"runtime/r_unwrap </dev/null >/dev/null; ( {FAILS}; true )"
    spoiled = f"( until [ -d {where} ]; do sleep 0.01; done; {harm.format(where, where)} )"
    text = f"{{ {cut}; {spoiled}; sleep 0.3; ( {FAILS}; true ) & }}{WAIT}"
    prefix = " ".join(MODES_APPLY)
    (tmp_path / "work" / "real.sh").write_text(text)
    result = bash(f"exec {prefix} bash real.sh", env={} if given else BY_HAND)
    assert result.returncode != 0, result.stderr.decode()


def test_a_full_disk(bash: Bash, tmp_path: Path) -> None:
    """The state folder on it: the component fails, and its marker has room that was kept."""
    job = f"{{ {{ runtime/r_unwrap </dev/null; cat /dev/zero >$D/small/fill; {FAILS}; true; }} & }}"
    (tmp_path / "work" / "real.sh").write_text(f"{job}{WAIT}")
    (tmp_path / "small").mkdir()
    mount = "mount -t tmpfs -o size=256k none $D/small && export PUNCH_STATE_DIR=$D/small/state"
    result = bash(f"exec unshare -Urm bash -c '{mount} && exec bash real.sh'")
    assert result.returncode == 1, result.stderr.decode()
    assert b"a component failed: r_unwrap" in result.stderr


@pytest.fixture
def outside_tmp() -> Iterator[Path]:
    """A folder with runtime/ that stays in sight under another /tmp."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        lay_out(Path(folder))
        yield Path(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a folder to another user")
@pytest.mark.parametrize(
    "prepared",
    [
        "mkdir -m 777 /tmp/.punch-0",
        "mkdir /tmp/.punch-0 && chown 1 /tmp/.punch-0",
        "mkdir /tmp/other && ln -s other /tmp/.punch-0",
    ],
)
def test_a_state_folder_of_somebody_else(outside_tmp: Path, prepared: str) -> None:
    """Another user has made it before, or has put a link there: we touch nothing and do nothing."""
    look = "ls -A /tmp/.punch-0/ /tmp/other"
    script = f"mount -t tmpfs none /tmp && {prepared} && {{ {UNWRAP}; echo $?; {look}; }}"
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script],
        cwd=outside_tmp,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "/tmp/.punch-0: " in done.stderr
    assert "set PUNCH_STATE_DIR" in done.stderr
    assert [x for x in done.stdout.splitlines() if not x.endswith(":") and x] == ["1"]
