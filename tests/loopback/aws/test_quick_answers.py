"""What comes of what `quick` sends: answers, refusals and failures are those of boto3."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from punchlib.aws import quick
from punchlib.config import Config
from tests.loopback.aws.test_quick import BUSY, CUT, HEAD, ITEM, OK, WHERE, both, ordinary, serving
from tests.support.ministack import MiniStack, free_port

__all__ = ["ordinary"]


def _refusal(call: Callable[[], object]) -> tuple[str, Any]:
    """What is said; boto3 makes a class for each code, which is still a ClientError."""
    with pytest.raises((ClientError, BotoCoreError)) as caught:
        call()
    answer = getattr(caught.value, "response", {})
    kept = {n: v for n, v in answer.items() if n != "ResponseMetadata"}
    kept.get("Error", {}).pop("RequestID", None)
    kept.get("Error", {}).pop("Key", None)
    for name in ("Resource", "BucketName", "RequestId"):
        kept.get("Error", {}).pop(name, None)
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    kind = "ClientError" if isinstance(caught.value, ClientError) else type(caught.value).__name__
    return kind, (kept.get("Error"), kept.get("Item"), status)


@pytest.fixture
def api(ministack: MiniStack, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The local AWS API, with a bucket."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, ministack.env[name])
    with contextlib.suppress(ClientError):
        ministack.client("s3").create_bucket(Bucket="buc-ket")
    return Config(region="us-east-1", endpoint_url=ministack.env["AWS_ENDPOINT_URL"])


def test_refusals_are_those_of_boto3(api: Config) -> None:
    theirs, ours = both(api, "s3")
    for request in (
        {"Bucket": "buc-ket", "Key": "none"},
        {"Bucket": "no-such-bucket", "Key": "none"},
    ):
        for operation in ("get_object", "head_object"):
            expected = _refusal(lambda o=operation, r=request: getattr(theirs, o)(**r))  # type: ignore[misc]
            assert _refusal(lambda o=operation, r=request: getattr(ours, o)(**r)) == expected  # type: ignore[misc]
    theirs, ours = both(api, "dynamodb")
    missing = {**ITEM, "TableName": "none"}
    expected = _refusal(lambda: theirs.update_item(**missing))
    assert _refusal(lambda: ours.update_item(**missing)) == expected


def test_objects_and_items_are_those_of_boto3(api: Config) -> None:
    theirs, ours = both(api, "s3")
    body = b"x" * 300_000
    ours.put_object(**WHERE, Body=body)
    assert theirs.get_object(**WHERE)["Body"].read() == body
    got, expected = ours.get_object(**WHERE), theirs.get_object(**WHERE)
    assert got["Body"].read() == body
    for found, wanted in (
        (got, expected),
        (ours.head_object(**WHERE), theirs.head_object(**WHERE)),
    ):
        for name in ("ETag", "ContentLength", "LastModified"):
            assert found[name] == wanted[name]
    ours.delete_object(**WHERE)
    with pytest.raises(ClientError):
        theirs.head_object(**WHERE)
    theirs, ours = both(api, "dynamodb")
    with contextlib.suppress(ClientError):
        theirs.create_table(
            TableName="rdv",
            AttributeDefinitions=[{"AttributeName": "key", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
    assert ours.update_item(**ITEM)["Attributes"]["N_0"] == {"S": '{"v": "2"}\n'}
    batch = {"RequestItems": {"rdv": {"Keys": [ITEM["Key"]], "ConsistentRead": True}}}
    assert ours.batch_get_item(**batch)["Responses"] == theirs.batch_get_item(**batch)["Responses"]
    refused = {**ITEM, "ConditionExpression": "attribute_not_exists(#me)"}
    refused["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    failure = _refusal(lambda: theirs.update_item(**refused))
    assert _refusal(lambda: ours.update_item(**refused)) == failure
    assert failure[1][1]  # the item came with it


def test_a_failure_that_passes_is_tried_again() -> None:
    with serving(BUSY, BUSY, OK) as server:
        assert both(server.config, "dynamodb")[1].update_item(**ITEM) == {}
    assert len(server.requests) == 3


def test_a_failure_that_stays_is_boto3s() -> None:
    with serving(BUSY) as server:
        ours = quick.client("dynamodb", server.config, attempts=2)
        kind, (error, _, status) = _refusal(lambda: ours.update_item(**ITEM))
        assert (kind, status, error["Code"]) == ("ClientError", 503, "503")
        assert len(server.requests) == 2


def test_a_connection_that_was_closed_while_it_lay_idle_is_no_failure() -> None:
    closes = OK[:-2] + b"{}"
    with serving(closes) as server:
        ours = quick.client("dynamodb", server.config, attempts=1)
        ours.update_item(**ITEM)
        ours.update_item(**ITEM)
        assert server.connections == 1
        threading.Event().wait(0.8)  # longer than the server waits for more
        ours.update_item(**ITEM)
        assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{}" + CUT,
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{}" + CUT,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-amz-crc32: 1\r\n\r\n{}",
        CUT,
    ],
)
def test_a_damaged_answer_is_none(answer: bytes) -> None:
    from punchlib.aws import errors

    with serving(answer) as server:
        ours = quick.client("dynamodb", server.config, attempts=1)
        with pytest.raises(Exception) as caught:
            ours.update_item(**ITEM)
        assert errors.is_transient(caught.value), repr(caught.value)


def test_a_body_that_breaks_off_is_no_object() -> None:
    with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{}" + CUT) as server:
        found = both(server.config, "s3")[1].get_object(**WHERE)
        with pytest.raises(BotoCoreError):
            found["Body"].read()


def test_nobody_there() -> None:
    config = Config(endpoint_url=f"http://127.0.0.1:{free_port()}")
    ours = quick.client("s3", config, attempts=2)
    with pytest.raises(BotoCoreError, match="Could not connect to the endpoint URL"):
        ours.get_object(**WHERE)


def test_who_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = Config(endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        ours = quick.client("s3", config, attempts=1, read_timeout=0.2)
        with pytest.raises(BotoCoreError, match="Read timeout"):
            ours.get_object(**WHERE)


def test_another_region_is_boto3s_to_find() -> None:
    moved = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    with serving(moved, HEAD) as server:
        assert both(server.config, "s3")[1].head_object(**WHERE)["ETag"] == '"e"'
    assert "Boto3" in server.requests[1][1]["user-agent"]
