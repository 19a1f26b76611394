"""`punch sh` on objects of a bucket, without --local: what it does there, and what it leaves.

Lambda itself is not here, so these pipelines run in one piece, on the EC2 handler.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.jobs.launch import Ec2Launcher
from punchlib.local.cloud import LocalCloud


@pytest.fixture
def s3(cloud: LocalCloud) -> Any:
    config = Config.from_env()
    s3 = client("s3", config)
    for key, body in (("in/a b.txt", b"b\na"), ("in/2", b"c\n"), ("old", b"old\n")):
        s3.put_object(Bucket=config.bucket, Key=key, Body=body)
    yield s3
    left = s3.list_objects_v2(Bucket=config.bucket, Prefix="punch-sh/")
    assert not left.get("Contents")


def punch(
    cloud: LocalCloud, folder: Path, *args: str, command: str = "sh -q"
) -> subprocess.CompletedProcess[bytes]:
    handler = cloud.launchers["ec2"]
    assert isinstance(handler, Ec2Launcher)
    program = [sys.executable, "-m", "punchlib.cli.main", *command.split()]
    return subprocess.run(
        [*program, "--ec2", f"unix:{handler._address}", *args],
        cwd=folder,
        capture_output=True,
        check=False,
    )


def test_objects_and_a_file(cloud: LocalCloud, s3: Any, tmp_path: Path) -> None:
    """The first does not end with a newline, so that its last line goes on in the second."""
    (tmp_path / "dict").write_bytes(b"b\n")
    line = "cat 's3://punch/in/a b.txt' s3://punch/in/2 | sort | comm -23 - dict"
    done = punch(cloud, tmp_path, line)
    assert (done.returncode, done.stdout) == (0, b"ac\n"), done.stderr


def test_into_an_object_and_never_over_one(cloud: LocalCloud, s3: Any, tmp_path: Path) -> None:
    line = "cat s3://punch/in/2 | nl >s3://punch/old"
    done = punch(cloud, tmp_path, line)
    assert done.returncode == 2
    assert b"s3://punch/old exists" in done.stderr
    done = punch(cloud, tmp_path, "--force", line)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert s3.get_object(Bucket="punch", Key="old")["Body"].read() == b"     1\tc\n"


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("cat s3://punch/none | nl", 1, b"s3://punch/none"),
        ("cat s3://other/in/2 | nl", 2, b"export AWS_BUCKET=other"),
        ("nl | cat >s3://other/out", 2, b"export AWS_BUCKET=other"),
    ],
)
def test_no_such_object(
    line: str, status: int, said: bytes, cloud: LocalCloud, s3: Any, tmp_path: Path
) -> None:
    done = punch(cloud, tmp_path, line)
    assert (done.returncode, done.stdout) == (status, b"")
    assert said in done.stderr
    assert done.stderr.count(b"error:") == 1


def test_an_object_that_is_replaced_after_the_plan(
    cloud: LocalCloud, s3: Any, tmp_path: Path
) -> None:
    line = "cat s3://punch/in/2 | nl"
    done = punch(cloud, tmp_path, "--explain", "--emit", "job", line)
    assert done.returncode == 0, done.stderr
    s3.put_object(Bucket="punch", Key="in/2", Body=b"other\n")
    done = punch(cloud, tmp_path, "job", command="run")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"the object was replaced while it was being read" in done.stderr


def test_patterns_are_the_bucket_s_objects(cloud: LocalCloud, s3: Any, tmp_path: Path) -> None:
    done = punch(cloud, tmp_path, "cat s3://punch/in/* | nl | tail -n 1")
    assert done.returncode == 0, done.stderr
    wanted = subprocess.run(
        ["bash", "-c", "printf 'c\\nb\\na' | nl | tail -n 1"], capture_output=True, check=True
    )
    assert done.stdout == wanted.stdout
