"""What `punch run` does in the bucket: inputs, scripts, outputs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from punchlib.aws.errors import translate
from punchlib.errors import StorageError, UsageError
from punchlib.jobs.new_file import NewFile
from punchlib.node.protocol import script_key

#: Seconds between two words on how far a file is.
EVERY = 2.0
#: As a FILE it means standard output.
STDOUT = Path("-")


def check_bucket(s3: Any, bucket: str) -> None:
    """Makes sure that the bucket can be used.

    Raises:
        StorageError: it is not there, or not ours to use.
    """
    with _translated(f"the bucket {bucket!r} cannot be used", "check AWS_BUCKET and AWS_REGION"):
        s3.head_bucket(Bucket=bucket)


def check_target(file: Path, name: str) -> None:
    """Makes sure that a result can be renamed into place there.

    Args:
        file: where it is to be.
        name: what people call it.

    Raises:
        UsageError: it cannot.
    """
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise UsageError(f"{name} is a folder, or in one that does not exist")
    if file.exists() and not file.is_file():
        # A file would be where a device was.
        raise UsageError(f"{name} is no regular file", next_step="write to stdout: | cat >FILE")


class Transfer:
    """Says how far a large file is, every few seconds.

    Args:
        what: for people.
        size: bytes in all.
        tell: is told.
    """

    def __init__(self, what: str, size: int, tell: Callable[[str], object]) -> None:
        self._what = what
        self._size = size
        self._tell = tell
        self._done = 0
        self._next = time.monotonic() + EVERY
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        """So many more bytes are through; boto3's threads call it."""
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now < self._next or self._done >= self._size:
                return
            self._next = now + EVERY
            share = 100 * self._done // self._size
        self._tell(f"{self._what}: {share} % of {self._size:,} bytes")


def upload(s3: Any, bucket: str, key: str, file: Path, tell: Callable[[str], object] = len) -> int:
    """Puts a file into the bucket and returns its size in bytes.

    Args:
        s3: a client.
        bucket, key: where to.
        file: a file.
        tell: is told how far it is.

    Raises:
        UsageError: the file cannot be read.
        StorageError: the bucket refused.
    """
    if not file.is_file():
        raise UsageError(f"{file} is not a file", next_step="--put KEY=FILE takes a local file")
    size = file.stat().st_size
    progress = Transfer(f"putting {file}", size, tell)
    with _translated(f"cannot put {file} to s3://{bucket}/{key}"):
        s3.upload_file(str(file), bucket, key, Callback=progress)
    return size


def upload_script(s3: Any, bucket: str, folder_id: str, script_id: str, text: bytes) -> None:
    """Puts a script where the nodes fetch it.

    Raises:
        StorageError: the bucket refused.
    """
    put(s3, bucket, script_key(folder_id, script_id), text)


def put(
    s3: Any, bucket: str, key: str, data: bytes, metadata: Mapping[str, str] | None = None
) -> None:
    """Puts a small object.

    Raises:
        StorageError: the bucket refused.
    """
    with _translated(f"cannot put s3://{bucket}/{key}"):
        s3.put_object(Bucket=bucket, Key=key, Body=data, Metadata=metadata or {})


def download(
    s3: Any, bucket: str, key: str, file: Path, tell: Callable[[str], object] = len
) -> int:
    """Writes an object to a file, whole or not at all; returns its size in bytes.

    Args:
        s3: a client.
        bucket, key: where from.
        file: where to.
        tell: is told how far it is.

    Raises:
        StorageError: there is no such object, the bucket refused, or the file cannot be written.
    """
    with _translated(
        f"cannot get s3://{bucket}/{key}", "check the key: the scripts' s3-put-object names it"
    ):
        answer = s3.get_object(Bucket=bucket, Key=key)
        body = answer["Body"]
        progress = Transfer(f"getting {key}", int(answer["ContentLength"]), tell)
        if file == STDOUT:
            return _copy(body, sys.stdout.buffer, progress)
        new = NewFile(file)
        try:
            with open(new.out.fileno(), "wb", closefd=False) as out:
                size = _copy(body, out, progress)
            new.keep()
        finally:
            new.drop()
        return size


def listed(s3: Any, bucket: str, prefix: str) -> list[dict[str, Any]]:
    """All objects whose keys begin with `prefix`, as S3 lists them (Key, Size, ETag).

    Raises:
        StorageError: the bucket refused.
    """
    with _translated(f"cannot list s3://{bucket}/{prefix}*"):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item for page in pages for item in page.get("Contents", ())]


def delete_prefix(s3: Any, bucket: str, prefix: str) -> None:
    """Removes every object whose key begins with `prefix`.

    Raises:
        StorageError: the bucket refused.
    """
    with _translated(f"cannot delete s3://{bucket}/{prefix}*"):
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            keys = [{"Key": item["Key"]} for item in page.get("Contents", ())]
            if keys:
                s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})


def _copy(body: Any, out: Any, progress: Transfer) -> int:
    size = 0
    for chunk in body.iter_chunks(1 << 20):
        out.write(chunk)
        size += len(chunk)
        progress(len(chunk))
    out.flush()
    return size


@contextmanager
def _translated(what: str, next_step: str = "") -> Iterator[None]:
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        why = {"404": "it does not exist", "NoSuchKey": "there is no such object"}.get(code)
        raise StorageError(f"{what}: {why or error}", next_step=next_step) from error
    except BotoCoreError as error:
        raise translate(error, what) or error from error
    except (S3UploadFailedError, OSError) as error:
        raise StorageError(f"{what}: {error}", next_step=next_step) from error
