"""Signature Version 4: proof, in a request's headers, of who sends it.

Source: "Create a signed AWS API request", docs.aws.amazon.com; botocore's own signer takes longer
to import than a cold node has (`punchlib.aws.quick`).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Mapping
from urllib.parse import urlsplit


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    service: str,
    region: str,
) -> dict[str, str]:
    """The headers of a request with its signature, under the credentials of the environment.

    Args:
        method: HTTP's.
        url: without a query.
        headers: those that the service needs.
        body: all of it.
        service: the name in the signature's scope.
        region: the other.
    """
    _, netloc, path, _, _ = urlsplit(url)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    digest = hashlib.sha256(body).hexdigest()
    signed = {**headers, "X-Amz-Date": stamp}
    if token := os.environ.get("AWS_SESSION_TOKEN"):
        signed["X-Amz-Security-Token"] = token
    if service == "s3":
        signed["X-Amz-Content-SHA256"] = digest
    lines = sorted((n.lower(), v.strip()) for n, v in {**signed, "host": netloc}.items())
    names = ";".join(name for name, _ in lines)
    canonical = "\n".join(
        (method, path, "", *(f"{name}:{value}" for name, value in lines), "", names, digest)
    )
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{os.environ['AWS_SECRET_ACCESS_KEY']}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    signed["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={os.environ['AWS_ACCESS_KEY_ID']}/{scope}, "
        f"SignedHeaders={names}, Signature={key.hex()}"
    )
    return signed
