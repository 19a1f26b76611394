"""Which shell settles a put, and what becomes of one whose shell is dead or not to be found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.jobtools import wait_until

from .conftest import Bash
from .test_s3_tools import Bucket, bucket

__all__ = ["bucket"]

SCRIPT = """
mkfifo "$D/fifo"
{{ bash -c 'echo begun; sleep 1; kill -PIPE $$' > "$D/fifo" & }}
p=$!
{{ {put} & }}
p="$! $p"
sleep {after}
kill -9 $$
source runtime/wait_for_output_and_sigpipe_rest.sh $p
exit $internal_exec_status
"""
PUT = 'python3.9 aws/s3-put-object.py out "$D/fifo" $1'


@pytest.mark.parametrize("state", ["given", "by hand"])
@pytest.mark.parametrize("after", ["0", "0.6"])
@pytest.mark.parametrize("put", [PUT, f"{{ {PUT}; }}", f"{{ {PUT} & }}; wait $!"])
def test_no_object(
    put: str, after: str, state: str, bash: Bash, bucket: Bucket, s3_env: dict[str, str]
) -> None:
    env = s3_env if state == "given" else s3_env | {"PUNCH_STATE_DIR": ""}
    result = bash(SCRIPT.format(put=put, after=after), env=env)
    assert result.returncode == -9
    assert bucket.get("out") is None, result.stderr
    wait_until(lambda: not bucket.uploads())
    assert b"the shell" in result.stderr


SETTLED = {
    # The inner shell has the text too, and never gets to the wait script.
    "a foreground phase": "( {put} a & {put} b & wait )\n{rest}",
    "a function in the background": "f() {{ {put} a & wait; }}\nf & p=$!\nwait $p\n{rest}",
    "an inner script": "( {put} a & p=$!; {wait} $p; exit $internal_exec_status ); exit",
    "both": "( {put} a & p=$!; {wait} $p )\n{put} b & p=$!\n{wait} $p\nexit $internal_exec_status",
}


@pytest.mark.parametrize("state", ["given", "by hand"])
@pytest.mark.parametrize("how", SETTLED)
def test_it_is_completed_once(
    how: str, state: str, bash: Bash, bucket: Bucket, s3_env: dict[str, str]
) -> None:
    wait = "source runtime/wait_for_output_and_sigpipe_rest.sh"
    script = 'put() { echo $1 | python3.9 aws/s3-put-object.py "$1" /dev/stdin; }\n'
    rest = f"true & p=$!\n{wait} $p\nexit $internal_exec_status"
    script += SETTLED[how].format(put="put", wait=wait, rest=rest)
    env = s3_env if state == "given" else s3_env | {"PUNCH_STATE_DIR": ""}
    result = bash(script, env=env)
    assert (result.returncode, result.stderr) == (0, b"")
    assert bucket.get("a") == b"a\n"
    wants_b = how in ("a foreground phase", "both")
    assert bucket.get("b") == (b"b\n" if wants_b else None)
    assert not bucket.uploads()


WAIT = "source runtime/wait_for_output_and_sigpipe_rest.sh"
A, B = (f"echo {key} | python3.9 aws/s3-put-object.py {key} /dev/stdin" for key in "ab")
AFTER = {
    "one": f"true & p=$!\n{WAIT} $p\n{A}\n",
    "one in a subshell": f"true & p=$!\n{WAIT} $p\n( {A} )\n",
    "one in the background": f"true & p=$!\n{WAIT} $p\n{A} &\nwait $!\n",
    "two, and one between": f"true & p=$!\n{WAIT} $p\n{B}\ntrue & p=$!\n{WAIT} $p\n{A}\n",
    "a failed one": f"false & p=$!\n{WAIT} $p\n{A}\n",
}


@pytest.mark.parametrize("state", ["given", "by hand"])
@pytest.mark.parametrize("how", AFTER)
def test_a_put_after_the_last_wait_script(
    how: str, state: str, bash: Bash, bucket: Bucket, s3_env: dict[str, str]
) -> None:
    """Nobody would complete it: it does so itself, as in a script that has no wait script."""
    env = s3_env if state == "given" else s3_env | {"PUNCH_STATE_DIR": ""}
    result = bash(f"{AFTER[how]}exit $?", env=env)
    if how == "a failed one":
        # What has failed in a folder that lasts is still there, and counts.
        assert (result.returncode == 0) is (bucket.get("a") is not None)
        assert (result.returncode == 0) is (state == "by hand")
    else:
        assert (result.returncode, result.stderr) == (0, b"")
        assert bucket.get("a") == b"a\n"
        assert bucket.get("b") == (b"b\n" if how == "two, and one between" else None)
    assert not bucket.uploads()


DIES = "bash -c 'sleep 0.5; kill -9 $$' & p=$!"
BETWEEN = {
    "by a variable": f"w={WAIT[7:]}\n. $w $p\n{DIES}\n{B}\n. $w $p\n",
    "in a function": f'finish() {{\n{WAIT} "$@"\n}}\nfinish $p\n{DIES}\n{B}\nfinish $p\n',
    "in a loop": f"for i in 1 2; do\n{WAIT} $p\n{DIES}\n{B}\ndone\n{WAIT} $p\n",
    "by what is sourced": f". ./lib\n{DIES}\n{B}\n. ./lib\n",
    "by what is sourced, and here": f". ./lib\n{DIES}\n{B}\n{WAIT} $p\n",
    "after an exec": f"{WAIT} $p\nexec bash next.sh\n",
    "under eval": f"{WAIT} $p\n{DIES}\n{B}\neval '{WAIT} $p'\n",
    "once more, from the background": f"{WAIT} $p\n{DIES}\n( {B} ) &\nwait $!\n{WAIT} $p\n",
}


@pytest.mark.parametrize("how", BETWEEN)
def test_a_put_before_another_wait_script_waits_for_it(
    how: str, bash: Bash, bucket: Bucket, s3_env: dict[str, str]
) -> None:
    """A stage of the second one dies, which nobody but that will know."""
    files = f"echo '{WAIT} $p' >lib\ncat >next.sh <<END\n{DIES}\n{B}\n{WAIT} \\$p\nexit 9\nEND\n"
    files = files.replace("$$", "\\$\\$").replace("$!", "\\$!")
    result = bash(
        f"{files}true & p=$!\n{BETWEEN[how]}exit $internal_exec_status",
        env=s3_env | {"PUNCH_STATE_DIR": ""},
    )
    assert result.returncode != 0
    assert bucket.get("b") is None, result.stderr
    assert not bucket.uploads()


ADOPTED = """
import os, subprocess, sys
if not os.fork():
    os.setsid()
    if not os.fork():
        os._exit(subprocess.run(["bash", "-c", "sleep 0.3; exec bash job.sh"]).returncode)
    os._exit(0)
"""


@pytest.mark.parametrize("state", ["given", "by hand"])
def test_a_script_without_a_wait_script_that_was_adopted(
    state: str, bash: Bash, bucket: Bucket, s3_env: dict[str, str], tmp_path: Path
) -> None:
    """`ssh HOST 'nohup bash job.sh &'`: its put has its own script's shell above it."""
    (tmp_path / "work" / "job.sh").write_text(
        'echo x >"$D/in"\n'
        'python3.9 aws/s3-put-object.py a "$D/in" 2>"$D/said"\n'
        'echo $? >"$D/status"\n'
    )
    (tmp_path / "work" / "adopted.py").write_text(ADOPTED)
    env = s3_env if state == "given" else s3_env | {"PUNCH_STATE_DIR": ""}
    bash(f"{sys.executable} adopted.py", env=env)
    wait_until(lambda: (tmp_path / "status").exists() and (tmp_path / "status").read_text())
    assert ((tmp_path / "status").read_text(), (tmp_path / "said").read_bytes()) == ("0\n", b"")
    assert bucket.get("a") == b"x\n"
