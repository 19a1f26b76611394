"""Reads an object as a stream: in order, bounded in memory, resumed at the byte after a break."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from punchlib.aws.errors import translate
from punchlib.errors import PunchError, StorageError
from punchlib.runtime import events

#: What one read asks of the connection.
_READ = 1 << 20
#: Breaks in a row without a byte in between, before we give up; pauses double from the first.
_TRIES = 6
_FIRST_PAUSE = 0.1
#: How S3 refuses a range that begins at or after the object's end.
_NO_SUCH_RANGE = ("InvalidRange", "416")


class ObjectReader:
    """One object of a bucket.

    The first answer's ETag is asked for ever after: an object that is replaced while we read
    it is an error, never a mixture.

    Args:
        s3: a client, which readers in several threads may share.
        bucket: the bucket.
        key: the key, as it is; spaces and quotes are fine.
        etag: of the object that is meant, without quotes; "" for whatever is there.
    """

    def __init__(self, s3: Any, bucket: str, key: str, etag: str = "") -> None:
        self.name = f"s3://{bucket}/{key}"
        self._where = {"Bucket": bucket, "Key": key}
        self._s3 = s3
        self._etag = f'"{etag}"' if etag else ""

    def size(self) -> int:
        """The object's size in bytes.

        Raises:
            StorageError: it does not exist, or S3 refuses.
        """
        try:
            answer = self._s3.head_object(**self._where, **self._same())
        except Exception as error:
            raise self._translated(error) from error
        self._etag = answer["ETag"]
        return int(answer["ContentLength"])

    def stream(self, first: int = 0, last: int | None = None) -> Iterator[bytes]:
        """Yields the bytes from `first` to `last`, both included, or to the object's end.

        Raises:
            StorageError: S3 refuses, or ignores the range, which may also begin beyond an object
                that is not empty, or the connection broke again and again.
        """
        at, tries = first, 0
        while True:
            try:
                body, end = self._get(at, last)
            except StorageError as error:
                # Any range of an empty object is empty, as for the other readers.
                if error.code in _NO_SUCH_RANGE and self.size() == 0:
                    return
                raise
            with closing(body):
                while data := _read(body):
                    at += len(data)
                    tries = 0
                    yield data
            if at >= end:
                facts = {"aws.s3.bucket": self._where["Bucket"], "aws.s3.key": self._where["Key"]}
                events.tell("download.ended", {**facts, "punch.bytes": at - first})
                return
            # From here on a break at `at`: the same connection would only break again.
            tries += 1
            if tries == _TRIES:
                raise StorageError(
                    f"{self.name}: the connection broke {tries} times at byte {at} of {end}",
                    next_step="check the network to S3, then run again",
                )
            last = end - 1
            time.sleep(_FIRST_PAUSE * 2 ** (tries - 1))

    def _get(self, first: int, last: int | None) -> tuple[Any, int]:
        """Begins one GET; returns its body and the offset at which the answer ends."""
        options = {**self._where, **self._same()}
        if first or last is not None:
            options["Range"] = f"bytes={first}-{'' if last is None else last}"
        try:
            answer = self._s3.get_object(**options)
        except Exception as error:
            raise self._translated(error) from error
        if "Range" in options and not answer.get("ContentRange", "").startswith(f"bytes {first}-"):
            answer["Body"].close()  # other bytes than those that were asked for
            raise StorageError(
                f"{self.name}: the store ignores ranges: asked for the bytes from {first} on, it"
                f" gives {answer.get('ContentRange') or 'the whole object'}",
                next_step="read through a store, and a proxy, that know ranges (HTTP status 206)",
            )
        self._etag = answer["ETag"]
        return answer["Body"], first + int(answer["ContentLength"])

    def _same(self) -> dict[str, str]:
        return {"IfMatch": self._etag} if self._etag else {}

    def _translated(self, error: Exception) -> Exception:
        if isinstance(error, PunchError):
            return error
        return translate(error, self.name) or error


def _read(body: Any) -> bytes:
    """Reads some; a broken connection reads like an end, and the caller counts the bytes."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    try:
        data: bytes = body.read(_READ)
    except (HTTPClientError, IncompleteReadError, OSError):
        return b""
    return data
