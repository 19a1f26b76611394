"""The wait script's status rules, with real stages."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from .conftest import Bash

WAIT = "source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}\n"
FIFOS = 'rm -f "$D/#fifo1" "$D/#fifo2"; mkfifo "$D/#fifo1" "$D/#fifo2"'
DIE = "bash -c 'kill -{} $$'"


def script(*stages: str, before_wait: str = "", options: str = "") -> str:
    lines = [options, 'pids_to_kill=""', FIFOS]
    for stage in stages:
        lines += [f"{{ {stage} & }}", 'pids_to_kill="${!} ${pids_to_kill}"']
    return "\n".join([*lines, before_wait, WAIT, 'exit "${internal_exec_status}"'])


# With a pause all stages have ended, and are out of sight, before the script waits for them.
@pytest.fixture(params=["", "sleep 0.3"], ids=["running", "ended"])
def before_wait(request: pytest.FixtureRequest) -> str:
    pause: str = request.param
    return pause


@pytest.mark.parametrize(
    "stage",
    [
        "true",
        "grep nothing /dev/null",
        "/usr/bin/env LC_ALL=C grep nothing /dev/null",
        "LC_ALL=C egrep nothing < /dev/null",
        "cat /dev/null | grep nothing",
        r"""grep 'a && b; c < /nowhere \ "d' /dev/null""",
        r"""grep "a || \"b; > /nowhere" < "/dev/null" >| /dev/null 2>&1""",
        r"""grep a\;b < /dev/null""",
        "cmp -s /dev/null runtime/r_split",
        "diff /dev/null runtime/r_split > /dev/null",
        "bash -c 'exit 141'",
        DIE.format("PIPE"),
        "yes | head -n 1 > /dev/null",
    ],
)
def test_harmless(bash: Bash, stage: str, before_wait: str) -> None:
    for stages in ([stage, "sleep 0.1"], ["sleep 0.1", stage]):
        result = bash(script(*stages, before_wait=before_wait))
        assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("stage", "status", "said"),
    [
        ("awk 'BEGIN {\n exit 3 }'", 3, b"ended with status 3: awk"),
        ("sort /nowhere", 2, b"ended with status 2: sort /nowhere"),
        ("false", 1, b"ended with status 1: false"),
        ("grep nothing /nowhere", 2, b"grep nothing /nowhere"),
        ("no-such-tool", 127, b"ended with status 127: no-such-tool"),
        (DIE.format(9), 137, b"SIGKILL"),
        (DIE.format("TERM"), 143, b"SIGTERM"),
        (DIE.format("SEGV"), 139, b"SIGSEGV"),
    ],
)
def test_failures_are_named_and_become_the_status(
    bash: Bash, stage: str, status: int, said: bytes, before_wait: str
) -> None:
    for stages, number in (([stage, "sleep 0.1"], 1), (["sleep 0.1", stage, "true"], 2)):
        result = bash(script(*stages, before_wait=before_wait))
        assert result.returncode == status
        assert said in result.stderr or b"was killed by" in result.stderr
        assert b"wait: stage %d of %d" % (number, len(stages)) in result.stderr


@pytest.mark.parametrize(
    ("stage", "options"),
    [
        ("grep -q root /etc/passwd && bash -c 'exit 1'", ""),
        ("grep nothing /dev/null || bash -c 'exit 1'", ""),
        ("grep nothing < /nowhere/in", ""),
        ('grep nothing > "/nowhere/out" < /dev/null', ""),
        ("bash -c 'exit 1' | grep -v '^#'", "set -o pipefail"),
    ],
)
def test_status_1_of_something_else_than_grep(
    bash: Bash, stage: str, options: str, before_wait: str
) -> None:
    result = bash(script("sleep 0.1", stage, before_wait=before_wait, options=options))
    assert result.returncode == 1
    assert b"ended with status 1" in result.stderr


def test_pids_in_another_variable_count_though_the_list_is_empty(
    bash: Bash, before_wait: str
) -> None:
    text = f"""pids_to_kill=""
{DIE.format(9)} &
stages="$! $stages"
{before_wait}
{WAIT.replace("${pids_to_kill}", "$stages")}
exit "${{internal_exec_status}}"
"""
    assert bash(text).returncode == 137


def test_what_runs_on_is_known_to_the_next_wait_script(bash: Bash) -> None:
    """A tool in `<( … )` is killed between two wait scripts: who reads it sees its input's end."""
    text = f"""mkfifo "$D/never" "$D/pid"
bash -c 'cat >/dev/null; sleep 0.2' < <(
    echo $BASHPID >"$D/pid"; exec runtime/dgsh-tee -i "$D/never" -o /dev/stdout) &
B=$!
read -r killed <"$D/pid"
until ls /tmp/.punch-$UID/*/running/$killed-* >/dev/null 2>&1; do sleep 0.02; done
sleep 0.1 &
{WAIT.replace("${pids_to_kill}", "$!")}
echo "first $internal_exec_status"
kill -9 "$killed"
{WAIT.replace("${pids_to_kill}", "$B")}
exit "${{internal_exec_status}}"
"""
    result = bash(text, env={"PUNCH_STATE_DIR": ""})
    assert (result.stdout, result.returncode) == (b"first 0\n", 1)
    assert b"it was killed, or ended without a word" in result.stderr


def test_the_first_stage_counts_before_others(bash: Bash) -> None:
    stages = ["bash -c 'sleep 0.2; exit 5'", "bash -c 'exit 4'"]
    assert bash(script(*stages)).returncode == 5


def test_it_works_under_strict_options(bash: Bash, before_wait: str) -> None:
    options = "set -euo pipefail"
    assert bash(script("true", "grep x /dev/null", options=options)).returncode == 0
    result = bash(script("true", "sort /nowhere", before_wait=before_wait, options=options))
    assert result.returncode == 2


def test_an_ifs_that_splits_pids(bash: Bash, before_wait: str) -> None:
    options = "IFS=0123456789"
    assert bash(script("true", before_wait=before_wait, options=options)).returncode == 0
    stages = ["sleep 0.5; sort /nowhere", "true"]
    result = bash(script(*stages, before_wait=before_wait, options=options))
    assert result.returncode == 2
    assert b"wait: stage 1 of 2" in result.stderr


def test_where_no_file_may_be_written(bash: Bash, before_wait: str) -> None:
    options = "ulimit -f 0"
    result = bash(script("sort /nowhere", before_wait=before_wait, options=options))
    assert result.returncode == 2
    assert b"wait: stage 1 of 1" in result.stderr


def test_a_marker_makes_the_script_fail(bash: Bash, tmp_path: Path) -> None:
    marking = "runtime/r_unwrap < <(printf x) > /dev/null; true"
    result = bash(script(f"bash -c '{marking}'"))
    assert result.returncode == 1
    assert b"r_unwrap" in result.stderr


def test_markers_of_a_script_run_by_hand(bash: Bash) -> None:
    # No PUNCH_STATE_DIR: the stages and the wait script find each other by the shell.
    stages = ["runtime/r_unwrap < runtime/r_unwrap > /dev/null", "sleep 0.1"]
    text = script(*stages).replace(
        'exit "${int',
        # Of this shell: in another process namespace others have had its pid.
        'ls /tmp/.punch-$UID | grep -c "^$$-$(cut -d" " -f22 /proc/$$/stat)$"; exit "${int',
    )
    result = bash(text, env={"PUNCH_STATE_DIR": ""})
    assert result.returncode == 6
    assert b"a component failed: r_unwrap" in result.stderr
    assert result.stdout == b"0\n"  # nothing is left behind


def test_a_shell_of_another_name_that_is_replaced_meanwhile(bash: Bash) -> None:
    inner = script("sleep 0.1", "runtime/r_unwrap < runtime/r_unwrap > /dev/null; true")
    text = f"""cp "$(command -v bash)" "$D/bash-5.2"
{{ printf '#!%s\n' "$D/bash-5.2"; cat; }} >"$D/inner" <<'END'
rm "$D/bash-5.2"
{inner}
END
chmod +x "$D/inner"
exec "$D/inner"
"""
    result = bash(text, env={"PUNCH_STATE_DIR": ""})
    assert result.returncode == 1
    assert b"a component failed: r_unwrap" in result.stderr


@pytest.mark.parametrize("how", ["bash -c 'source \"$D/inner\" x'", 'bash "$D/outer"'])
def test_a_stage_of_a_script_that_is_sourced_knows_of_its_wait_script(
    how: str, bash: Bash, tmp_path: Path
) -> None:
    look = tmp_path / "look.py"
    look.write_text(
        "from punchlib.runtime import script_shell\n"
        "print(len(script_shell.lineage().sourcing) > 0)\n"
    )
    (tmp_path / "inner").write_text(f'"{sys.executable}" "{look}"\nexit\n{WAIT}')
    (tmp_path / "outer").write_text(f". {tmp_path}/inner\n")
    result = bash(f"{how.replace('$D', str(tmp_path))}\n", env={"PYTHONPATH": str(Path.cwd())})
    assert result.stdout == b"True\n"


def test_neighbours_of_a_stage_that_never_opened_its_fifo(bash: Bash) -> None:
    started = time.monotonic()
    result = bash(script("bash -c 'exit 9'", 'cat "$D/#fifo1"', 'sort < "$D/#fifo2"'))
    assert result.returncode == 9
    assert result.stderr.count(b"still there after the failure") >= 1
    assert time.monotonic() - started < 28  # and not the 30 s that others get


@pytest.mark.parametrize("limit", ["", "ulimit -f 0"])
@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("python3 -c 'import time; time.sleep(100)'", "cat > /dev/null"),
        ("bash -c 'trap \"\" PIPE TERM; for i in $(seq 100); do sleep 1; done'", "cat > /dev/null"),
        # Before it has become the command: its output is a pipe already, but not its input.
        ('cat <"$D/nobody"', "cat > /dev/null"),
        # The last, which is the stage, is dead; bash says so when the first is.
        ("sleep 100", "bash -c 'kill -9 $$'"),
        ("python3 -c 'import time; time.sleep(100)' | cat", "true"),
    ],
)
def test_a_pipeline_whose_first_command_stays(
    first: str, last: str, limit: str, bash: Bash
) -> None:
    """Python ignores SIGPIPE, and so does a put that waits for a FIFO that nobody opens any more;
    bash waits for all of a pipeline. Which that are, `jobs` may have no room on a disk to say."""
    started = time.monotonic()
    result = bash(
        f"""
        PUNCH_FAILURE_GRACE=0.3
        mkfifo "$D/nobody"
        {limit}
        {{ bash -c 'exit 3' & }}
        p=$!
        {{ {first} | {last} & }}
        p="$! $p"
        source runtime/wait_for_output_and_sigpipe_rest.sh $p
        exit $internal_exec_status
        """
    )
    assert result.returncode == 3
    assert f"sending SIGPIPE: {last}".encode() in result.stderr
    assert time.monotonic() - started < 20


def test_no_stage_at_all(bash: Bash) -> None:
    assert bash(script()).returncode == 0


def test_many_stages(bash: Bash) -> None:
    result = bash(script(*["true"] * 200, "sort /nowhere", *["true"] * 50))
    assert result.returncode == 2
    assert b"stage 201 of 251" in result.stderr


def test_it_announces_itself_while_it_waits(bash: Bash) -> None:
    look = 'ls "$D"/state/verdicts/*.begun && exit 0; sleep 0.1'
    stage = f"bash -c 'for i in $(seq 50); do {look}; done; exit 7'"
    assert bash(script(stage)).returncode == 0
