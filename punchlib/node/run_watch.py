"""Has a run been given up? Its node asks the bucket: Lambda has no other way to be told.

The runner keeps one object beside the scripts and writes it again every few seconds, its lease. It
removes it, with the scripts, when it stops waiting; when it has been killed, the object stays as it
is. Only that it changes counts, on this machine's monotonic clock: no time of day is compared.
"""

from __future__ import annotations

import time
from typing import Any

from punchlib.node.protocol import ASK_HEADER, Event, Task, lease_key, script_key

SWEPT = "the run was given up: its scripts are no longer in S3"


class RunWatch:
    """Looks whether a job's runner still waits.

    Args:
        s3: an S3 client.
        bucket: where the scripts lie.
        task: the script that runs.
        event: the event it came in; without a lease (an older runner) only the script itself is
            looked for.

    Attributes:
        asked: what the lease asks its nodes to tell of themselves; another word each time, and
            "" for nothing.
    """

    def __init__(self, s3: Any, bucket: str, task: Task, event: Event) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._patience = event.lease
        folder = task.folder_id
        self._key = lease_key(folder) if event.lease else script_key(folder, task.id)
        self._seen: object = None
        self._since = 0.0
        self.asked = ""

    def given_up(self) -> str:
        """Why nobody waits any more; "" while somebody does, or may."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            found = self._s3.head_object(Bucket=self._bucket, Key=self._key)
        except ClientError as error:
            self._seen = None
            return SWEPT if is_missing(error) else ""
        except BotoCoreError:
            # S3 out of reach says nothing about the run, and what keeps us from it may keep the
            # runner from it as well: its lease counts anew.
            self._seen = None
            return ""
        self.asked = found["ResponseMetadata"]["HTTPHeaders"].get(ASK_HEADER, "")
        now, sign = time.monotonic(), (found.get("ETag"), found.get("LastModified"))
        if sign != self._seen:
            self._seen, self._since = sign, now
        elif self._patience and now - self._since >= self._patience:
            return f"the run was given up: its runner gave no sign of life for {self._patience:g} s"
        return ""


def is_missing(error: Any) -> bool:
    """Does a ClientError say that there is no such object?"""
    return error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey", "NoSuchBucket")
