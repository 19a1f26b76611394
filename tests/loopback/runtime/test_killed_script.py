"""The shell of a script is killed, and a put outlives it: nobody can vouch for what it has read."""

from __future__ import annotations

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
