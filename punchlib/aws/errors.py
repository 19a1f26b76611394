"""The one place that turns botocore's errors into ours."""

from __future__ import annotations

from typing import Any

from punchlib.errors import StorageError


def translate(error: Exception, what: str = "S3") -> StorageError | None:
    """Our error for one of botocore's, or None for any other exception.

    Args:
        error: what was raised.
        what: names the object in the message, for instance "s3://bucket/key".
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    if isinstance(error, ClientError):
        code = _code(error)
        return StorageError(f"{what}: {code}: {_message(error)}", next_step=_NEXT.get(code, ""))
    if isinstance(error, NoCredentialsError):
        return StorageError(
            f"{what}: no AWS credentials",
            next_step="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role",
        )
    if isinstance(error, BotoCoreError):
        return StorageError(
            f"{what}: {error}", next_step="check the network, AWS_REGION and AWS_ENDPOINT_URL"
        )
    return None


def is_code(error: Exception, *codes: str) -> bool:
    """Is this S3's answer with one of these codes?"""
    from botocore.exceptions import ClientError

    return isinstance(error, ClientError) and _code(error) in codes


def _code(error: Any) -> str:
    """S3's own code ("NoSuchKey"), or the HTTP status where a HEAD brings no body."""
    return str(error.response.get("Error", {}).get("Code", "?"))


def _message(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Message", "")) or "no message"


_NEXT = {
    "NoSuchKey": "check the key; is the input in the bucket that AWS_BUCKET names?",
    "404": "check the key; is the input in the bucket that AWS_BUCKET names?",
    "NoSuchBucket": "check AWS_BUCKET and AWS_REGION",
    "AccessDenied": "the role of this machine needs s3:GetObject, s3:PutObject and "
    "s3:AbortMultipartUpload on the bucket",
    "403": "the role of this machine needs s3:GetObject on the bucket",
    "ExpiredToken": "the credentials have expired: get fresh ones",
    "PreconditionFailed": "the object was replaced while it was being read: run again",
    "NoSuchUpload": "the multipart upload was aborted by somebody else: run again",
}
