"""A tool of ours that is killed where bash does not look, and one that outlives its script.

Neither leaves a word; what tells them apart is that the first is dead (`state.begin`).
"""

from __future__ import annotations

import pytest

from .conftest import Bash

BY_HAND = {"PUNCH_STATE_DIR": ""}
#: Its folder, by the name that its script has.
STATE = """
state=${PUNCH_STATE_DIR:-/tmp/.punch-$UID/$$-$(cut -d ' ' -f 22 /proc/$$/stat)}
mkfifo "$D/in" "$D/out" "$D/never"
exec 8<>"$D/in"
"""
#: Waits until a tool runs, and sends it a signal.
KILL = """
until pid=$(cd "$state/running" && ls -d *.{tool}); do sleep 0.05; done 2>/dev/null
kill -{signal} "${{pid%%-*}}"
"""
WAIT = """
source runtime/wait_for_output_and_sigpipe_rest.sh $p
exit "$internal_exec_status"
"""
#: It has its input, which never ends.
READS = 'runtime/r_unwrap <"$D/in"'
UNSEEN = {
    "a process substitution": f"cat <( {READS} ) >/dev/null",
    "one that is written to": f'tee >( {READS} >/dev/null ) <<<"" >/dev/null',
    "an exec in one": f"cat <( exec {READS} ) >/dev/null",
    "a pipeline": f"{READS} | cat >/dev/null",
    "a subshell that goes on": f"( {READS} >/dev/null; true )",
    "a shell that goes on": f"bash -c '{READS} >/dev/null; true'",
}


@pytest.mark.parametrize("env", [{}, BY_HAND], ids=["given", "by hand"])
@pytest.mark.parametrize("signal", ["KILL", "SEGV"])
@pytest.mark.parametrize("stage", UNSEEN.values(), ids=UNSEEN)
def test_a_killed_tool_fails_its_script(
    bash: Bash, stage: str, signal: str, env: dict[str, str]
) -> None:
    kill = KILL.format(tool="r_unwrap", signal=signal)
    result = bash(f"{STATE}{{ {stage} & }}; p=$!{kill}{WAIT}", env=env)
    assert result.returncode == 1, result.stderr.decode()
    assert b"a component failed: r_unwrap (pid " in result.stderr


@pytest.mark.parametrize("env", [{}, BY_HAND], ids=["given", "by hand"])
def test_one_that_still_runs_is_no_failure(bash: Bash, env: dict[str, str]) -> None:
    """Its reader has had enough, and the script does not wait for it."""
    # It ends when the script, which holds its input open, has ended.
    stage = f"true <( exec {READS} >/dev/null 2>&1 8>&- )"
    look = 'until [ "$(ls "$state/running")" ]; do sleep 0.05; done 2>/dev/null'
    result = bash(f"{STATE}{{ {stage} & }}; p=$!\n{look}{WAIT}", env=env)
    assert result.returncode == 0, result.stderr.decode()
    assert result.stderr == b""


def test_one_whose_reader_left_is_no_failure(bash: Bash) -> None:
    tool = "runtime/dgsh-tee -i /dev/stdin -o /dev/stdout -I"
    stage = f"head -c 1 <( yes | {tool} ) >/dev/null"
    look = 'until [ -d "$state/running" ] && [ -z "$(ls "$state/running")" ]; do sleep 0.05; done'
    result = bash(f"{STATE}{{ {stage} & }}; p=$!\n{look}{WAIT}")
    assert result.returncode == 0, result.stderr.decode()


def test_its_neighbours_do_not_wait_for_ever(bash: Bash) -> None:
    """It dies before it has opened the FIFO from which a stage would read."""
    split = 'runtime/r_split -r "$D/in" 1000 "$D/never" "$D/out"'
    stages = f'{{ true <( exec {split} ) & }}; p=$!; {{ cat "$D/out" & }}; p="$! $p"'
    result = bash(f"{STATE}{stages}{KILL.format(tool='r_split', signal='KILL')}{WAIT}")
    assert result.returncode == 1, result.stderr.decode()
    assert b"a component failed: r_split (pid " in result.stderr
    assert b"sending SIGPIPE: cat" in result.stderr
