"""What `quick` sends is what boto3 sends; what it cannot send is left to boto3."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config as BotoConfig
from botocore.credentials import Credentials

from punchlib.aws import clients, quick
from punchlib.config import Config

KEY_ID, SECRET, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCY", "to/ken+=="
#: Who asks, which try it is, how bodies may come back: not what is asked.
NOT_COMPARED = {
    "user-agent",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "authorization",  # checked with botocore's signer
    "x-amz-date",
    "accept-encoding",
    "connection",
    "expect",
}
ITEM: dict[str, Any] = {
    "TableName": "rdv",
    "Key": {"key": {"S": 'é \\ " k'}},
    "UpdateExpression": "SET #me = :me, expires_at = :expires",
    "ExpressionAttributeNames": {"#me": "N_0"},
    "ExpressionAttributeValues": {":me": {"S": '{"v": "2"}\n'}, ":expires": {"N": "17"}},
    "ReturnValues": "ALL_NEW",
}
BATCH = {"RequestItems": {"rdv": {"Keys": [{"key": {"S": "k"}}], "ConsistentRead": True}}}
WHERE = {"Bucket": "buc-ket", "Key": "a b/ü+~(é)//..?#&=%/x'\".sh"}
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("dynamodb", "update_item", ITEM),
    ("dynamodb", "batch_get_item", BATCH),
    ("s3", "get_object", WHERE),
    ("s3", "head_object", WHERE),
    ("s3", "put_object", {**WHERE, "Body": bytes(range(256)) * 9}),
    ("s3", "put_object", {**WHERE, "Body": b""}),
    ("s3", "delete_object", WHERE),
]


@pytest.fixture(autouse=True)
def ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in clients.surroundings()["variables"]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


class Server:
    """Answers each request with the next of some answers, the last of them for ever."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self._ended = False
        self.connections = 0
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.config = Config(endpoint_url=f"http://127.0.0.1:{self._listener.getsockname()[1]}")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended:
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                self.connections += 1
                connection.settimeout(0.5)
                with connection, contextlib.suppress(OSError, ValueError):
                    self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            while line := lines.readline().decode().strip():
                headers: dict[str, str] = {}
                while header := lines.readline().decode("latin-1").strip():
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                if "expect" in headers:
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = lines.read(int(headers.get("content-length", "0")))
                self.requests.append((line, headers, body))
                answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                connection.sendall(answer)
                if answer.endswith(CUT):
                    return

    def close(self) -> None:
        self._ended = True
        self._thread.join()
        self._listener.close()


#: An answer whose connection ends with it.
CUT = b"<cut>"
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: "e"\r\n\r\n{}'
PUT = b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "e"\r\n\r\n'
NOTHING = b"HTTP/1.1 204 No Content\r\n\r\n"
HEAD = b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\nETag: "e"\r\n\r\n'
BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"


def _plain(method: str) -> bytes:
    return {"head_object": HEAD, "delete_object": NOTHING, "put_object": PUT}.get(method, OK)


@contextlib.contextmanager
def serving(*answers: bytes) -> Iterator[Server]:
    server = Server(*answers)
    assert server.config.endpoint_url
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.config.endpoint_url)
        try:
            yield server
        finally:
            server.close()
            gc.collect()  # clients close what they keep


def both(config: Config, service: str) -> tuple[Any, Any]:
    """boto3's client, and ours."""
    style: Any = {"s3": {"addressing_style": "path"}} if service == "s3" else {}
    theirs = boto3.Session().client(
        service,  # type: ignore[call-overload]
        region_name=config.region,
        endpoint_url=config.endpoint_url,
        config=BotoConfig(response_checksum_validation="when_required", **style),
    )
    ours = quick.client(service, config)
    assert isinstance(ours, quick.QuickClient)
    return theirs, ours


@pytest.mark.parametrize("token", ["", TOKEN])
@pytest.mark.parametrize(("service", "operation", "request_"), CALLS)
def test_the_bytes_are_those_of_boto3(
    service: str,
    operation: str,
    request_: dict[str, Any],
    token: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    with serving(_plain(operation)) as server:
        for client in both(server.config, service):
            answer = getattr(client, operation)(**request_)
            if operation == "get_object":
                answer["Body"].read()
    (line, theirs, body), (our_line, ours, our_body) = server.requests
    assert our_line == line
    assert our_body == body
    compared = [
        {n: v for n, v in headers.items() if n not in NOT_COMPARED} for headers in (theirs, ours)
    ]
    # boto3 says so of an empty body, too; HTTP does without.
    for headers in compared:
        if headers.get("content-length") == "0":
            del headers["content-length"]
    assert compared[1] == compared[0]
    assert ours["authorization"] == _signature_of_botocore(service, our_line, ours, our_body, token)


def _signature_of_botocore(
    service: str, line: str, headers: dict[str, str], body: bytes, token: str
) -> str:
    method, path, _ = line.split()
    names = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    request = AWSRequest(
        method,
        f"http://{headers['host']}{path}",
        {n: headers[n] for n in names if n != "host"},
        body,
    )
    request.context["timestamp"] = headers["x-amz-date"]
    # As botocore sends it to an endpoint that is not AWS's.
    request.context["payload_signing_enabled"] = True
    credentials = Credentials(KEY_ID, SECRET, token or None)
    kind = S3SigV4Auth if service == "s3" else SigV4Auth
    signer: Any = kind(credentials, service, "us-east-1")
    text = signer.string_to_sign(request, signer.canonical_request(request))
    signed = ";".join(sorted(names))
    return (
        f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={signed}, "
        f"Signature={signer.signature(text, request)}"
    )


def test_the_time_is_now() -> None:
    with serving(HEAD) as server:
        quick.client("s3", server.config).head_object(**WHERE)
    [(_, headers, _)] = server.requests
    stamp = datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - stamp).total_seconds()) < 60


@pytest.mark.parametrize("region", ["us-east-1", "us-west-2", "eu-central-1", "ap-southeast-5"])
def test_aws_is_looked_for_where_boto3_looks(region: str) -> None:
    config = Config(region=region)

    class Seen(Exception):
        pass

    def url(service: str, operation: str, **request: Any) -> str:
        found: list[str] = []

        def note(request: Any, **_: object) -> None:
            found.append(request.url)
            raise Seen

        client = clients.client(service, config)
        client.meta.events.register("before-send", note)
        with contextlib.suppress(Seen):
            getattr(client, operation)(**request)
        return found[0]

    assert quick.table_url(config) == url("dynamodb", "update_item", **ITEM)
    assert quick.object_url(config, **_lower(WHERE)) == url("s3", "get_object", **WHERE)


def _lower(where: dict[str, Any]) -> dict[str, Any]:
    return {name.lower(): value for name, value in where.items()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_PROFILE", "p"),
        ("AWS_CA_BUNDLE", "/x"),
        ("AWS_ENDPOINT_URL_S3", "http://x"),
        ("AWS_USE_FIPS_ENDPOINT", "true"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://x"),
        ("https_proxy", "http://x"),
        ("AWS_CONFIG_FILE", __file__),
    ],
)
def test_what_is_unusual_is_for_boto3(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(region="eu-west-1")
    assert quick.ordinary(config)
    monkeypatch.setenv(name, value)
    assert not quick.ordinary(config)


def test_a_file_that_says_nothing_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The local cloud sees nothing of ~/.aws, and must start its nodes as AWS does."""
    (tmp_path / "config").touch()
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    assert quick.ordinary(Config(region="eu-west-1"))
    os.mkfifo(tmp_path / "fifo")  # what `AWS_CONFIG_FILE=<(…)` is
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "fifo"))
    assert not quick.ordinary(Config(region="eu-west-1"))


@pytest.mark.parametrize(
    "region", ["cn-north-1", "us-gov-west-1", "us-iso-east-1", "eu-isoe-west-1"]
)
def test_other_partitions_are_for_boto3(region: str) -> None:
    assert not quick.ordinary(Config(region=region))
    assert quick.ordinary(Config(region=region, endpoint_url="http://x"))


def test_without_credentials_it_is_for_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert not quick.ordinary(Config(region="eu-west-1"))


@pytest.mark.parametrize("bucket", ["with.dot", "UPPER", "ab", "-ab", "arn:aws:s3:::x"])
def test_unusual_buckets_are_for_boto3(bucket: str) -> None:
    assert quick.object_url(Config(), bucket, "k") is None


def test_any_other_operation_is_boto3s() -> None:
    listed = b"<ListBucketResult><Name>b</Name><KeyCount>0</KeyCount></ListBucketResult>"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(listed), listed)
    with serving(answer) as server:
        assert both(server.config, "s3")[1].list_objects_v2(Bucket="b-b")["KeyCount"] == 0
        ranged = both(server.config, "s3")[1].get_object(**WHERE, Range="bytes=0-1")
        ranged["Body"].read()
    assert server.requests[1][1]["range"] == "bytes=0-1"
    assert all("Boto3" in headers["user-agent"] for _, headers, _ in server.requests)


def test_it_says_who_it_is() -> None:
    with serving(OK) as server:
        quick.client("dynamodb", replace(server.config, region="eu-west-1")).update_item(**ITEM)
    [(_, headers, body)] = server.requests
    assert headers["user-agent"] == "punchlib"
    assert "/eu-west-1/dynamodb/" in headers["authorization"]
    assert json.loads(body) == ITEM
    assert urlsplit(server.config.endpoint_url or "").netloc == headers["host"]
