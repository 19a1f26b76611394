"""A job that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.local.cloud import LocalCloud
from tests.support.jobgen import sort_job


@pytest.fixture
def sort(cloud: LocalCloud, tmp_path: Path) -> Path:
    """The sort of two workers, with its input in the bucket and no output."""
    job = sort_job(2)
    job.write(tmp_path)
    config = Config.from_env()
    s3 = client("s3", config)
    s3.put_object(Bucket=config.bucket, Key=job.inputs[0], Body=b"b\nc\na\n")
    s3.delete_object(Bucket=config.bucket, Key=job.output)
    return tmp_path
