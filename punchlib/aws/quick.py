"""The few calls of a node's first second, without boto3.

Importing boto3 and making two clients takes longer than everything else that a cold node does
before its first stream stands. Where nothing is unusual in how AWS is reached (`ordinary`: the
credentials stand in the environment, as on Lambda), these calls are signed and sent here: what goes
out is what boto3 sends, byte by byte but for its name, and what is raised is what boto3 raises. Any
other operation, and any answer that is not plain, is for boto3's own client, made when needed.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import weakref
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from punchlib.aws.answers import Answer, no_answer
from punchlib.aws.clients import (
    CONNECT_TIMEOUT,
    KEEP_ALIVE,
    MAX_ATTEMPTS,
    POOL,
    READ_TIMEOUT,
    surroundings,
)
from punchlib.aws.clients import client as whole_client
from punchlib.aws.errors import is_transient
from punchlib.aws.signing import sign
from punchlib.config import Config

#: What may be set where nothing is unusual; another variable may change how AWS is reached.
_ORDINARY = frozenset(
    (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_EC2_METADATA_DISABLED",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_XRAY_CONTEXT_MISSING",
        "AWS_XRAY_DAEMON_ADDRESS",
        "HOME",
    )
)
#: Regions of the partition "aws": those of others have endpoints of other names.
_REGION = re.compile(r"(af|ap|ca|eu|il|me|mx|sa|us)-[a-z]+-\d{1,2}")
#: Buckets that are part of the host's name.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
#: Seconds: the first pause before a call is made again; it doubles.
_PAUSE, _LONGEST_PAUSE = 0.1, 20.0
_WHO = {"User-Agent": "punchlib"}
#: What boto3 mends by asking elsewhere: another region, another name of the host.
_ELSEWHERE = (301, 302, 307, 308, 400)


def client(
    service: str,
    config: Config,
    *,
    attempts: int = MAX_ATTEMPTS,
    pool: int = POOL,
    connect_timeout: float = CONNECT_TIMEOUT,
    read_timeout: float = READ_TIMEOUT,
) -> Any:
    """A client of "s3" or "dynamodb"; boto3's own where something is unusual.

    Args:
        service: which.
        config: region and endpoint come from here.
        attempts: calls in all, the first included, where a failure may pass.
        pool: idle connections that boto3's client keeps.
        connect_timeout: seconds until a connection must stand.
        read_timeout: seconds for which an answer may keep us waiting.

    Raises:
        UsageError: the user's AWS environment is wrong; says what to mend.
    """
    whole = partial(
        whole_client,
        service,
        config,
        max_pool_connections=pool,
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        retries={"mode": "standard", "total_max_attempts": attempts},
    )
    if not ordinary(config):
        return whole()
    return QuickClient(service, config, whole, attempts, (connect_timeout, read_timeout))


def ordinary(config: Config) -> bool:
    """Whether AWS is reached here in the one way that this module knows."""
    around = surroundings()
    names = set(around["variables"])
    return (
        {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= names <= _ORDINARY
        and not any(around["files"])
        and (bool(config.endpoint_url) or bool(_REGION.fullmatch(config.region)))
    )


class QuickClient:
    """Some operations of one service; all others are those of boto3's client.

    Threads may share it. A fork may use it as long as nothing was called.

    Args:
        service: "s3" or "dynamodb".
        config: region and endpoint come from here.
        whole: makes boto3's client.
        attempts: calls in all.
        timeouts: seconds, to connect and to read.
    """

    def __init__(
        self,
        service: str,
        config: Config,
        whole: Callable[[], Any],
        attempts: int,
        timeouts: tuple[float, float],
    ) -> None:
        self._service = service
        self._config = config
        self._whole = whole
        self._attempts = attempts
        self._timeouts = timeouts
        self._idle: dict[str, list[http.client.HTTPConnection]] = {}
        self._made: Any = None
        weakref.finalize(self, _close_all, self._idle)

    def __getattr__(self, operation: str) -> Any:
        if self._made is None:
            self._made = self._whole()
        return getattr(self._made, operation)

    def update_item(self, **request: Any) -> Any:
        return self._dynamodb("UpdateItem", request)

    def batch_get_item(self, **request: Any) -> Any:
        return self._dynamodb("BatchGetItem", request)

    def get_object(self, **request: Any) -> Any:
        return self._s3("get_object", request)

    def head_object(self, **request: Any) -> Any:
        return self._s3("head_object", request)

    def put_object(self, **request: Any) -> Any:
        return self._s3("put_object", request)

    def delete_object(self, **request: Any) -> Any:
        return self._s3("delete_object", request)

    def _dynamodb(self, operation: str, request: dict[str, Any]) -> Any:
        headers = {
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
            "Content-Type": "application/x-amz-json-1.0",
        }
        body = json.dumps(request).encode()
        url = table_url(self._config)
        return self._call(operation, "POST", url, headers, body).document()

    def _s3(self, operation: str, request: dict[str, Any]) -> Any:
        plain = request.keys() <= {"Bucket", "Key", "Body"}
        url = object_url(self._config, request["Bucket"], request["Key"]) if plain else None
        if url is not None:
            method = operation.partition("_")[0].upper()
            body = request.get("Body", b"")
            headers = _checksum(body) if method == "PUT" else {}
            name = operation.title().replace("_", "")
            answer = self._call(name, method, url, headers, body)
            if answer.status < 300:
                facts = answer.facts()
                return {**facts, "Body": answer} if method == "GET" else facts
        return self.__getattr__(operation)(**request)

    def _call(
        self,
        operation: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
    ) -> Answer:
        """Sends a request until it is answered or the attempts are used up.

        A GET's answer is not read yet: it is an object, of any size.

        Raises:
            ClientError: the service refuses.
            BotoCoreError: no answer came.
        """
        for attempt in range(1, self._attempts + 1):
            try:
                answer = self._send(method, url, headers, body)
                if method != "GET" or answer.status >= 300:
                    answer.text = answer.take()
            except (OSError, http.client.HTTPException) as error:
                if attempt == self._attempts:
                    raise no_answer(error, url) from error
            else:
                s3_elsewhere = self._service == "s3" and answer.status in _ELSEWHERE
                if answer.status < 300 or s3_elsewhere:
                    return answer
                refusal = answer.refusal(operation, method)
                if attempt == self._attempts or not is_transient(refusal):
                    raise refusal
            _pause(attempt)
        raise AssertionError("no attempt was made")

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        signed = sign(method, url, headers, body, self._service, self._config.region)
        scheme, netloc, path, _, _ = urlsplit(url)
        idle = self._idle.setdefault(netloc, [])
        while True:
            try:
                connection, used = idle.pop(), True
            except IndexError:
                connection, used = self._connect(scheme, netloc), False
            try:
                connection.request(method, path, body or None, {**signed, **_WHO})
                return Answer(connection.getresponse(), connection, idle)
            except (ConnectionError, http.client.RemoteDisconnected):
                connection.close()
                if not used:
                    raise  # else it had been closed while it lay idle: that is no failure
            except BaseException:
                connection.close()
                raise

    def _connect(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        to_connect, to_read = self._timeouts
        if scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                netloc, timeout=to_connect, context=_tls()
            )
        else:
            connection = http.client.HTTPConnection(netloc, timeout=to_connect)
        connection.connect()
        for option in KEEP_ALIVE:
            connection.sock.setsockopt(*option)
        connection.sock.settimeout(to_read)
        return connection


def table_url(config: Config) -> str:
    """Where DynamoDB is asked."""
    if config.endpoint_url:
        return f"{config.endpoint_url.rstrip('/')}/"
    return f"https://dynamodb.{config.region}.amazonaws.com/"


def object_url(config: Config, bucket: str, key: str) -> str | None:
    """An object's URL; None where boto3 knows a case that this module does not."""
    if not key or not _BUCKET.fullmatch(bucket):
        return None
    path = quote(key, safe="/-._~")
    if config.endpoint_url:
        return f"{config.endpoint_url.rstrip('/')}/{bucket}/{path}"
    region = "" if config.region == "us-east-1" else f".{config.region}"
    return f"https://{bucket}.s3{region}.amazonaws.com/{path}"


def _close_all(idle: dict[str, list[http.client.HTTPConnection]]) -> None:
    for connections in idle.values():
        for connection in connections:
            connection.close()


def _pause(attempt: int) -> None:
    import random  # 6 ms, and most calls go well

    time.sleep(random.uniform(0, min(_PAUSE * 2**attempt, _LONGEST_PAUSE)))


def _checksum(body: bytes) -> dict[str, str]:
    """Of an upload: the service compares it with what came."""
    crc = b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    return {"x-amz-checksum-crc32": crc, "x-amz-sdk-checksum-algorithm": "CRC32"}


@lru_cache
def _tls() -> Any:
    """Trusts whom boto3 trusts: the authorities that come with it."""
    import ssl

    import botocore

    return ssl.create_default_context(cafile=Path(botocore.__file__).parent / "cacert.pem")
