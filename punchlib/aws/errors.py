"""The one place that turns botocore's errors into ours."""

from __future__ import annotations

import time
from typing import Any, TypeVar

from punchlib.errors import PunchError, StorageError, UsageError

Kind = TypeVar("Kind", bound=PunchError)

#: Seconds by which our clock may differ from AWS's before it is blamed; AWS allows 300.
CLOCK_TOLERANCE = 60.0


def translate(
    error: Exception,
    what: str = "S3",
    kind: type[Kind] = StorageError,  # type: ignore[assignment]
) -> Kind | None:
    """Our error for one of botocore's, or None for any other exception.

    Args:
        error: what was raised.
        what: names the object in the message, for instance "s3://bucket/key".
        kind: the class of our error.
    """
    from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError

    if isinstance(error, ClientError):
        code = code_of(error)
        message, step = f"{what}: {code}: {_message(error)}", _NEXT.get(code, "")
        if code in _SIGNATURE and (clock := _clock(error)):
            message, step = f"{message}; {clock}", "set this machine's clock (NTP), then run again"
    elif isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        code, message = "", f"{what}: no AWS credentials ({error})"
        step = _CREDENTIALS
    elif is_transient(error):
        code, message = "", f"{what}: {error}"
        step = "check the network, AWS_REGION and AWS_ENDPOINT_URL"
    else:
        return None
    ours = kind(message, next_step=step)
    ours.code = code
    ours.may_pass = is_transient(error)
    return ours


def misconfigured(error: Exception) -> UsageError:
    """Our error for what botocore raises when it cannot even make a client."""
    from botocore import exceptions as known

    text = str(error).rstrip(".")
    if isinstance(error, known.ProfileNotFound):
        step = "check AWS_PROFILE: `aws configure list-profiles` names those that there are"
    elif isinstance(error, known.ConfigParseError):
        step = "mend that file, or name another one in AWS_CONFIG_FILE"
    elif isinstance(error, (known.InvalidRegionError, known.NoRegionError)):
        step = "set AWS_REGION, for instance to us-east-1"
    elif isinstance(error, ValueError) and "ndpoint" in text:
        step = "an endpoint is a URL: AWS_ENDPOINT_URL=http://HOST:PORT"
    elif isinstance(error, (known.NoCredentialsError, known.PartialCredentialsError)):
        step = _CREDENTIALS
    else:
        step = "check AWS_PROFILE, ~/.aws/config and the variables that begin with AWS_"
    return UsageError(f"AWS cannot be used as it is set up here: {text}", next_step=step)


def code_of(error: Exception) -> str:
    """A service's own code ("NoSuchKey"), or the HTTP status where a HEAD brings no body.

    "" for what no service answered.
    """
    answer: dict[str, Any] = getattr(error, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", "?")) if answer else ""


def is_code(error: Exception, *codes: str) -> bool:
    """Is this a service's answer with one of these codes?"""
    return code_of(error) in codes


def is_transient(error: Exception) -> bool:
    """Whether the same call may go well in a moment: a throttle, a 5xx, a lost connection."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )

    if isinstance(error, ClientError):
        answer: Any = error.response
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return code_of(error) in _TRANSIENT or status >= 500
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return False
    # A garbled answer: botocore's parsers, who say so, take 100 ms to import.
    return isinstance(error, BotoCoreError) or type(error).__name__ == "ResponseParserError"


def _message(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Message", "")) or "no message"


def _clock(error: Any) -> str:
    """How far our clock is off, by the `Date` of the answer; "" when that is not the reason."""
    from email.utils import parsedate_to_datetime

    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        ahead = time.time() - parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return ""
    if abs(ahead) < CLOCK_TOLERANCE:
        return ""
    return (
        f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} AWS's"
    )


_SIGNATURE = frozenset(
    (
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "RequestTimeTooSkewed",
        "RequestExpired",
        "AuthFailure",
        "ExpiredTokenException",
        "ExpiredToken",
        "403",
    )
)
_TRANSIENT = frozenset(
    (
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "TooManyRequestsException",  # Lambda's
        "RequestLimitExceeded",
        "InternalServerError",
        "ServiceUnavailable",
        "TransactionConflictException",
        "LimitExceededException",
        "InternalFailure",
    )
)
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
_RENEW = "renew the AWS credentials of this machine"
_NEXT = {
    "ExpiredTokenException": _RENEW,
    "UnrecognizedClientException": _RENEW,
    "InvalidSignatureException": _RENEW,
    "MissingAuthenticationTokenException": _RENEW,
    "IncompleteSignature": _RENEW,
    "NoSuchKey": "check the key; is the input in the bucket that AWS_BUCKET names?",
    "404": "check the key; is the input in the bucket that AWS_BUCKET names?",
    "NoSuchBucket": "check AWS_BUCKET and AWS_REGION",
    "AccessDenied": "the role of this machine needs s3:GetObject, s3:PutObject and "
    "s3:AbortMultipartUpload on the bucket",
    "403": "the role of this machine needs s3:GetObject on the bucket",
    "ExpiredToken": "the credentials have expired: get fresh ones",
    "PreconditionFailed": "the object was replaced while it was being read: run again",
    "412": "the object was replaced while it was being read: run again",
    "NoSuchUpload": "the multipart upload was aborted by somebody else: run again",
}
