"""The second step of a put: all of it or nothing, and once."""

from __future__ import annotations

from pathlib import Path

import pytest

from punchlib.errors import StorageError
from punchlib.runtime import commit, pending
from tests.support.jobtools import wait_until

from .conftest import Bash
from .test_s3_tools import WAIT, Bucket, bucket, put_job

__all__ = ["bucket"]


def test_the_runner_commits_what_the_put_left(
    bash: Bash, bucket: Bucket, s3_env: dict[str, str], tmp_path: Path
) -> None:
    job = put_job("seq 5")
    bucket.put("out", b"from before")
    for finish, expected in ((commit.abort, b"from before"), (commit.complete, b"1\n2\n3\n4\n5\n")):
        result = bash(job, env=s3_env | {"PUNCH_COMMIT": "runner"})
        assert (result.returncode, result.stderr) == (0, b"")
        assert bucket.get("out") == b"from before"
        left = pending.uploads(str(tmp_path / "state"))
        finish(left[-1:], bucket.s3)
        assert bucket.get("out") == expected
        assert not bucket.uploads()
    commit.abort(left, bucket.s3)  # already gone: no error
    with pytest.raises(StorageError, match="was not completed: NoSuchUpload"):
        commit.complete(left[:1], bucket.s3)


def test_what_cannot_be_completed_is_aborted(bucket: Bucket) -> None:
    """It would stay for ever; or somebody who tries again would make an object of it."""
    uploads = []
    for key in ("a", "b"):
        started = bucket.s3.create_multipart_upload(Bucket=bucket.name, Key=key)
        part = {"Bucket": bucket.name, "Key": key, "UploadId": started["UploadId"], "PartNumber": 1}
        etag = bucket.s3.upload_part(**part, Body=b"x")["ETag"]
        number = 1 if key == "b" else 2  # which was never sent
        parts = [{"PartNumber": number, "ETag": etag}]
        facts = {"bucket": bucket.name, "key": key, "upload_id": started["UploadId"]}
        uploads.append(facts | {"parts": parts})
    with pytest.raises(StorageError, match=r"/a was not completed: InvalidPart"):
        commit.complete(uploads, bucket.s3)
    assert (bucket.keys(), bucket.uploads()) == (["b"], [])


def test_uploads_are_settled_once(bash: Bash) -> None:
    """One put has two records. What has failed at the first must not go well at the second."""
    result = bash(
        """
        mkdir rt; cp runtime/wait_for_output_and_sigpipe_rest.sh rt
        printf '#!/bin/sh\\necho "$1"; [ -e again ] || { touch again; exit 1; }' >rt/punch-commit
        chmod +x rt/punch-commit
        mkdir -p "$D/state"/{failures,verdicts,pending,running,spare}
        touch "$D/state/pending"/{1,2}.json
        source rt/wait_for_output_and_sigpipe_rest.sh
        exit "$internal_exec_status"
        """
    )
    assert (result.returncode, result.stdout) == (1, b"complete\n"), result.stderr


#: The put is no stage, and gets its input when the wait script has begun to settle.
UNSEEN = """
mkfifo "$D/go"
state=${PUNCH_STATE_DIR:-/tmp/.punch-$UID/$$-$(cut -d ' ' -f 22 /proc/$$/stat)}
{ true > >( { read -r go <"$D/go"; THEN; } |
  python3.9 aws/s3-put-object.py out /dev/stdin ) & }; p=$!
until ls "$state/pending/"*.put; do sleep 0.05; done >/dev/null 2>&1
{ until ls "$state/running/"*.punch-commit || ! kill -0 $$; do sleep 0.05; done
  echo go 1<>"$D/go"; } >/dev/null 2>&1 &
"""


def unseen(then: str) -> str:
    return UNSEEN.replace("THEN", then) + WAIT


@pytest.mark.parametrize("engine", ["by an engine", "alone"])
@pytest.mark.parametrize("folder", ["given", "by hand"])
def test_a_put_that_is_no_stage_is_waited_for(
    bash: Bash, bucket: Bucket, s3_env: dict[str, str], folder: str, engine: str
) -> None:
    """It had status 0 and no object: the put found nobody any more who would complete it."""
    env = s3_env if folder == "given" else s3_env | {"PUNCH_STATE_DIR": ""}
    env = env if engine == "by an engine" else env | {"PUNCH_ENGINE": ""}
    result = bash(unseen("echo late"), env=env)
    assert (result.returncode, result.stderr) == (0, b"")
    assert (bucket.get("out"), bucket.uploads()) == (b"late\n", [])


@pytest.mark.parametrize("folder", ["given", "by hand"])
def test_a_put_that_is_no_stage_and_begins_late(
    bash: Bash, bucket: Bucket, s3_env: dict[str, str], folder: str
) -> None:
    """Its stage has ended before it could say that it runs; twice, with one that is a stage."""
    put = "python3.9 aws/s3-put-object.py"
    phase = f"""
    {{ echo KEY | tee > >(sleep 0.5; exec {put} KEY1 /dev/stdin) >({put} KEY2 /dev/stdin) & }}
    p=$!
    {{ {put} KEY3 s & }}; p="$! $p"
    {WAIT.replace("exit", ": ")}
    """
    script = "echo s >s\n" + phase.replace("KEY", "a") + phase.replace("KEY", "b")
    env = s3_env if folder == "given" else s3_env | {"PUNCH_STATE_DIR": ""}
    result = bash(f"{script}exit $internal_exec_status", env=env)
    assert (result.returncode, result.stderr) == (0, b"")
    assert bucket.keys() == ["a1", "a2", "a3", "b1", "b2", "b3"]
    assert not bucket.uploads()


@pytest.mark.parametrize("end", ["kill -9 $put", "kill $put"])
def test_a_put_that_is_no_stage_and_fails(
    bash: Bash, bucket: Bucket, s3_env: dict[str, str], end: str
) -> None:
    find = 'put=$(cd "$state/running"; ls -d *.s3-put-object.py); put=${put%%-*}'
    result = bash(unseen(f"{find}; {end}"), env=s3_env)
    assert result.returncode == 1, result.stderr
    assert (bucket.get("out"), bucket.uploads()) == (None, [])


def test_a_put_that_is_no_stage_on_a_node(
    bash: Bash, bucket: Bucket, s3_env: dict[str, str], tmp_path: Path
) -> None:
    """The handler ends what runs when the script has ended."""
    result = bash(unseen("echo late"), env=s3_env | {"PUNCH_COMMIT": "runner"})
    assert (result.returncode, result.stderr) == (0, b"")
    commit.complete(pending.uploads(str(tmp_path / "state")), bucket.s3)
    assert bucket.get("out") == b"late\n"


@pytest.mark.parametrize("engine", ["by an engine", "alone"])
@pytest.mark.parametrize("opened", ["9> >({put})", '9<>"$D/f"; {put} <"$D/f" 9>&- &'])
def test_a_put_that_could_only_end_after_the_script(
    bash: Bash, bucket: Bucket, s3_env: dict[str, str], opened: str, engine: str
) -> None:
    """To wait for it would be to wait for ever."""
    env = s3_env if engine == "by an engine" else s3_env | {"PUNCH_ENGINE": ""}
    opened = opened.format(put="python3.9 aws/s3-put-object.py out /dev/stdin")
    begun = 'until ls "$D/state/pending/"*.put; do sleep 0.05; done >/dev/null 2>&1'
    result = bash(f'mkfifo "$D/f"; exec {opened}\ntrue & p=$!\n{begun}\n{WAIT}', env=env)
    assert result.returncode == 1
    assert b"a put reads what the shell of its script still writes" in result.stderr
    wait_until(lambda: not bucket.uploads())
    assert bucket.get("out") is None


def test_a_store_that_only_the_put_was_told(
    bash: Bash, bucket: Bucket, s3_env: dict[str, str]
) -> None:
    """Its script's variables lead to another: the upload would stay in the one that is meant."""
    names = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_BUCKET")
    told = " ".join(f"{name}={s3_env[name]}" for name in names)
    script = put_job("seq 3").replace("python3.9", f"{told} python3.9")
    elsewhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_BUCKET": ""}
    result = bash(script, env=s3_env | elsewhere)
    assert (result.returncode, result.stderr) == (0, b"")
    assert bucket.get("out") == b"1\n2\n3\n"
    assert not bucket.uploads()


def test_an_upload_of_which_nobody_says_that_it_is_whole(bucket: Bucket) -> None:
    """But for a piece, which another node has completed."""
    upload = {"bucket": bucket.name, "key": "k", "parts": None}
    started = bucket.s3.create_multipart_upload(Bucket=bucket.name, Key="k")["UploadId"]
    commit.complete([upload | {"upload_id": started, "piece": True}], bucket.s3)
    assert len(bucket.uploads()) == 1
    with pytest.raises(StorageError, match="nobody says that all of it is there"):
        commit.complete([upload | {"upload_id": started}], bucket.s3)
    assert bucket.uploads() == []
