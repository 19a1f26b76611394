"""The second step of a put: complete what is whole, abort what is not.

An S3 multipart upload is invisible until it is completed, so a put that has uploaded every part
can wait until somebody knows that all is well (docs/architecture.md). That is the job runner, the
handler, or the wait script; the last through `punch-commit complete|abort STATE_DIR`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from punchlib.aws.errors import is_code, translate
from punchlib.config import Config
from punchlib.errors import StorageError, UsageError
from punchlib.runtime import pending, state, storage, verdicts


def deferred() -> list[str]:
    """The state folders of whoever will complete what we put; none where nobody comes after us.

    They are several where it cannot be told yet which shell will. The first that does takes the
    record out of all.

    Raises:
        StorageError: somebody was to, and is dead: who could say that our input was whole?
    """
    scope = state.scope()
    if os.environ.get("PUNCH_COMMIT"):
        return scope.folders[:1]
    try:
        # A small put may end before its script has started its last stage, and the wait script.
        shells = verdicts.judges(scope)
    except LookupError as error:
        raise StorageError(str(error)) from None
    return list(dict.fromkeys(scope.folder_of(shell) for shell in shells))


def complete(uploads: Iterable[Mapping[str, Any]], s3: Any) -> None:
    """Completes uploads: the objects appear, in order. All are tried, and what fails is aborted.

    Args:
        uploads: what `pending.uploads()` or a handler's result holds. Of one without parts nobody
            has said that it is whole: another record of it has them, here or on another node.
        s3: a boto3 client.

    Raises:
        StorageError: at least one could not be completed; names the first.
    """
    first: StorageError | None = None
    failed = []
    for upload in uploads:
        if upload["parts"] is None:
            continue
        parts = {"Parts": upload["parts"]}
        try:
            s3.complete_multipart_upload(**where(upload), MultipartUpload=parts)
        except Exception as error:
            failed.append(upload)
            first = first or _translated(error, upload, "was not completed")
    if first:
        # Or it could appear later, after we have said that it does not.
        with contextlib.suppress(StorageError):
            abort(failed, s3)
        raise first


def abort(uploads: Iterable[Mapping[str, Any]], s3: Any) -> None:
    """Aborts uploads: nothing appears, what was there stays. An upload that is gone is no error.

    Raises:
        StorageError: at least one could not be aborted; names the first.
    """
    first: StorageError | None = None
    for upload in uploads:
        try:
            s3.abort_multipart_upload(**where(upload))
        except Exception as error:
            if is_code(error, "NoSuchUpload"):
                continue
            first = first or _translated(error, upload, "was not aborted")
    if first:
        raise first


def where(upload: Mapping[str, Any]) -> dict[str, str]:
    """As S3 wants to hear which upload is meant."""
    return {"Bucket": upload["bucket"], "Key": upload["key"], "UploadId": upload["upload_id"]}


def _translated(error: Exception, upload: Mapping[str, Any], what: str) -> StorageError:
    name = f"the upload to s3://{upload['bucket']}/{upload['key']} {what}"
    known = translate(error, name)
    if known is None:
        raise error
    return known


def main(argv: Sequence[str]) -> int:
    """`punch-commit complete|abort STATE_DIR`: for the wait script."""

    def body() -> int:
        from punchlib.aws.clients import client

        match list(argv):
            case ["complete" | "abort" as verb, folder]:
                act = complete if verb == "complete" else abort
                act(pending.uploads(folder), client("s3", Config.from_env()))
                # Or whoever looks here next, or another shell, would complete them again.
                pending.drop(folder)
                return 0
        raise UsageError("wrong arguments", next_step="punch-commit complete|abort STATE_DIR")

    return storage.run("punch-commit", body)
