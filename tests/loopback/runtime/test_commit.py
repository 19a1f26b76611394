"""The second step of a put: all of it or nothing, and once."""

from __future__ import annotations

from pathlib import Path

import pytest

from punchlib.errors import StorageError
from punchlib.runtime import commit, pending

from .conftest import Bash
from .test_s3_tools import Bucket, bucket, put_job

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
