"""A user's environment that is missing or wrong: one message in every command, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiers import quick

#: A tool of a script, by its name, without the engine.
TOOL = (
    "import sys; from punchlib.runtime import catalogue;"
    "sys.exit(catalogue.load(sys.argv[1])(sys.argv[2:]))"
)

#: What is wrong, and what the message must say.
WRONG = [
    pytest.param({"AWS_PROFILE": "none-such"}, ("none-such", "AWS_PROFILE"), id="profile"),
    pytest.param({"AWS_CONFIG_FILE": "CONFIG"}, ("CONFIG", "mend that file"), id="config"),
    pytest.param({"AWS_REGION": "not a region!"}, ("not a region!", "AWS_REGION"), id="region"),
    pytest.param(
        {"AWS_ENDPOINT_URL": "127.0.0.1:1"}, ("127.0.0.1:1", "AWS_ENDPOINT_URL"), id="endpoint"
    ),
    pytest.param(
        {"AWS_ACCESS_KEY_ID": ""}, ("credentials", "AWS_ACCESS_KEY_ID"), id="no credentials"
    ),
    pytest.param({"AWS_SECRET_ACCESS_KEY": ""}, ("AWS_SECRET_ACCESS_KEY",), id="half of them"),
]
COMMANDS = [
    pytest.param(["-m", "punchlib.cli.main", "run", "JOB"], id="punch run"),
    pytest.param(["-c", TOOL, "pashlib", "recv*k*1*0*FIFO"], id="pashlib"),
    pytest.param(["-c", TOOL, "s3-get-object.py", "key", "FILE"], id="s3-get"),
    pytest.param(["-c", TOOL, "s3-put-object.py", "key", "JOB/a.sh"], id="s3-put"),
    pytest.param(
        ["-m", "punchlib.cli.main", "deploy", "--yes", "--image", "1.dkr.ecr.x.amazonaws.com/a@b"],
        id="punch deploy",
    ),
]


@pytest.mark.parametrize("command", quick(COMMANDS, 5))
@pytest.mark.parametrize(("wrong", "told"), WRONG)
def test_one_message(
    wrong: dict[str, str], told: tuple[str, ...], command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "JOB").mkdir()
    (tmp_path / "JOB" / "a.sh").write_text("true\n")
    (tmp_path / "CONFIG").write_text("[default\nregion")
    os.mkfifo(tmp_path / "FIFO")
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PUNCH_STATE_DIR": str(tmp_path / "state"),
            "PUNCH_TIMEOUT": "60",
            "PASH_STUN_SERVER": "127.0.0.1:1",
            "AWS_BUCKET": "bucket",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
            **wrong,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (1, 2, 3), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    for text in told:
        assert text in done.stderr
    assert len(done.stderr.splitlines()) <= 6, done.stderr


def test_local_sees_nothing_of_the_users_aws(tmp_path: Path) -> None:
    """Whatever is in ~/.aws and in the environment, a run on this machine goes well."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("[default\nregion")
    (tmp_path / ".aws" / "credentials").write_text("nonsense")
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "a.sh").write_text(
        "python3.9 aws/s3-get-object.py in /dev/stdout"
        " | python3.9 aws/s3-put-object.py out /dev/stdin"
    )
    (tmp_path / "in").write_text("text")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "punchlib.cli.main", "run", "--local", "job"),
            *("--put", "in=in", "--get", "out=-"),
        ],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "AWS_PROFILE": "none-such",
            "AWS_REGION": "not a region!",
            "AWS_ENDPOINT_URL": "nowhere",
            "AWS_ACCESS_KEY_ID": "mine",
            "PASH_STUN_SERVER": "[::1]:1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "text"), done.stderr
