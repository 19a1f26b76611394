"""AWS as it should be, and each thing missing, forbidden or wrong; MiniStack is real S3 and all.

MiniStack permits everything, and knows the time. So a second server refuses by IAM's words, or
dates its answers as it is told.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import threading
import time
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from punchlib.aws import clients
from punchlib.config import Config
from punchlib.doctor import cloud
from punchlib.doctor.finding import Finding, Level
from tests.support.ministack import MiniStack, free_port


@pytest.fixture(scope="module")
def deployed(ministack: MiniStack) -> str:
    """A bucket, a table with TTL and a function, all of this name."""
    mine = f"d{uuid.uuid4().hex[:10]}"
    ministack.client("s3").create_bucket(Bucket=mine)
    make_table(ministack, mine)
    ministack.client("dynamodb").update_time_to_live(
        TableName=mine,
        TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires_at"},
    )
    make_function(ministack, mine)
    return mine


@pytest.fixture
def here(ministack: MiniStack, deployed: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "PUNCH_TABLE", "PUNCH_FUNCTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ministack.env.items():
        monkeypatch.setenv(name, value)
    # As in the engine: making one takes longer than all else here.
    monkeypatch.setattr(clients, "_keeping", True)
    return replace(Config.from_env(), bucket=deployed, table=deployed, function=deployed)


def make_function(ministack: MiniStack, name: str) -> None:
    functions = ministack.client("lambda")
    functions.create_function(
        FunctionName=name,
        Runtime="python3.12",
        Role="arn:aws:iam::000000000000:role/r",
        Handler="f.handler",
        Code={"ZipFile": zipped()},
        MemorySize=1769,
        Timeout=900,
    )
    functions.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})


def make_table(ministack: MiniStack, name: str, key: str = "key") -> None:
    ministack.client("dynamodb").create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
        KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("f.py", "def handler(event, context): return 1\n")
    return file.getvalue()


def seen(config: Config, *, node: bool = False) -> dict[str, Finding]:
    return {f.name: f for f in cloud.examine(config, node=node)}


def test_all_is_there(here: Config, ministack: MiniStack) -> None:
    found = seen(here)
    assert [f for f in found.values() if f.level is not Level.OK] == []
    assert list(found) == [
        *("region", "clock", "credentials", "bucket", "table", "function", "concurrency")
    ]
    assert "by AWS_REGION" in found["region"].what
    assert "000000000000" in found["credentials"].what
    assert "expire by expires_at" in found["table"].what
    assert "1769 MB" in found["function"].what and "a zip for python3.12" in found["function"].what
    assert re.search(r"[\d,]+ workers at once", found["concurrency"].what)


def test_nothing_stays(here: Config, ministack: MiniStack) -> None:
    seen(here)
    assert ministack.client("s3").list_objects_v2(Bucket=here.bucket)["KeyCount"] == 0
    assert ministack.client("dynamodb").scan(TableName=here.table)["Count"] == 0


def test_a_node_is_not_asked_for_what_only_a_runner_needs(here: Config) -> None:
    assert {"function", "concurrency"} & set(seen(here, node=True)) == set()


def test_no_credentials(here: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """One message and the next step; what needs none is said all the same."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    found = seen(here)
    assert list(found) == ["region", "clock", "credentials", "AWS"]
    assert found["credentials"].level is Level.FAIL
    assert "no AWS credentials" in found["credentials"].what
    assert "AWS_ACCESS_KEY_ID" in found["credentials"].next_step
    assert found["clock"].level is Level.OK
    assert found["AWS"].level is Level.WARN


@pytest.mark.parametrize(
    ("change", "name", "level", "text", "step"),
    [
        ({"bucket": None}, "bucket", Level.FAIL, "AWS_BUCKET is not set", "export AWS_BUCKET"),
        ({"bucket": "no-such-b"}, "bucket", Level.FAIL, "no bucket no-such-b", "AWS_BUCKET"),
        ({"table": "nix"}, "table", Level.WARN, "no table nix", "PUNCH_TABLE"),
        (
            {"table": "nix", "endpoint_url": None},
            *("table", Level.FAIL, "no table nix", "punch deploy"),
        ),
        ({"function": "nix"}, "function", Level.FAIL, "no function nix", "PUNCH_FUNCTION"),
    ],
)
def test_what_is_missing(
    change: dict[str, Any], name: str, level: Level, text: str, step: str, here: Config
) -> None:
    config = replace(here, **change)
    found = {
        "bucket": lambda: cloud.bucket(config),
        "table": lambda: cloud.table(config, node=False),
        "function": lambda: cloud.function(config),
    }[name]()
    assert (found.level, text in found.what, step in found.next_step) == (level, True, True), found


def test_a_table_without_ttl(here: Config, ministack: MiniStack) -> None:
    make_table(ministack, f"{here.table}-2")
    found = cloud.table(replace(here, table=f"{here.table}-2"), node=False)
    assert found.level is Level.WARN
    assert "its time to live is off" in found.what
    assert "expires_at" in found.next_step


def test_a_table_that_is_something_else(here: Config, ministack: MiniStack) -> None:
    make_table(ministack, f"{here.table}-3", key="name")
    found = cloud.table(replace(here, table=f"{here.table}-3"), node=False)
    assert found.level is Level.FAIL
    assert "is no rendezvous" in found.what


def test_a_function_that_never_runs(here: Config, ministack: MiniStack) -> None:
    name = f"{here.function}-2"
    make_function(ministack, name)
    ministack.client("lambda").put_function_concurrency(
        FunctionName=name, ReservedConcurrentExecutions=0
    )
    found = cloud.function(replace(here, function=name))
    assert found.level is Level.FAIL
    assert "never runs" in found.what


def test_the_region_is_a_guess(here: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    assert cloud.region(here).level is Level.WARN
    assert "by the profile" in cloud.region(replace(here, region="eu-west-1")).what


@contextlib.contextmanager
def server(refuse: str = "", ahead: float = 0.0) -> Iterator[str]:
    """Refuses each request that holds `refuse` (by operation or path), and dates its answers.

    Args:
        refuse: a pattern of "METHOD PATH TARGET".
        ahead: seconds of its clock before ours.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # botocore asks before it puts (100-continue)

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length).decode(errors="replace")
            asked = f"{self.command} {self.path} {self.headers.get('X-Amz-Target')} {body}"
            refused = bool(refuse) and re.search(refuse, asked)
            text = {"__type": "AccessDeniedException", "message": "not authorized to do that"}
            name = _name(asked)
            payload = json.dumps(ANSWERS[name]).encode() if name else b""
            if refused:
                payload = json.dumps(text).encode()
            if "GetCallerIdentity" in body:
                payload = IDENTITY
            self.send_response_only(400 if refused else 200)
            self.send_header("Date", formatdate(time.time() + ahead, usegmt=True))
            if refused:
                self.send_header("x-amzn-ErrorType", "AccessDeniedException")
            self.send_header("Connection", "close")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(payload)

        def log_message(self, format: str, *args: object) -> None:
            return

    for method in ("GET", "PUT", "POST", "HEAD", "DELETE"):
        setattr(Handler, f"do_{method}", Handler._answer)
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def _name(asked: str) -> str:
    return next((name for name in ANSWERS if name in asked), "")


ANSWERS: dict[str, Any] = {
    "DescribeTable": {
        "Table": {
            "KeySchema": [{"AttributeName": "key", "KeyType": "HASH"}],
            "TableStatus": "ACTIVE",
        }
    },
    "DescribeTimeToLive": {
        "TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}
    },
    "/functions/": {"Configuration": {"MemorySize": 1769, "Timeout": 900, "Runtime": "python3.12"}},
    "account-settings": {
        "AccountLimit": {"ConcurrentExecutions": 10, "UnreservedConcurrentExecutions": 10}
    },
}
IDENTITY = (
    b"<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::1:user/u</Arn>"
    b"<Account>1</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
)


@pytest.fixture
def elsewhere(here: Config, monkeypatch: pytest.MonkeyPatch) -> Any:
    def at(url: str) -> Config:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        return replace(here, endpoint_url=url)

    return at


@pytest.mark.parametrize(
    ("refuse", "name", "node", "level", "text"),
    [
        ("/functions/", "function", False, Level.WARN, "lambda:GetFunction"),
        ("account-settings", "concurrency", False, Level.WARN, "lambda:GetAccountSettings"),
        ("DescribeTimeToLive", "table", False, Level.WARN, "dynamodb:DescribeTimeToLive"),
        ("DescribeTimeToLive", "table", True, Level.OK, ""),
        ("DescribeTable", "table", False, Level.WARN, "dynamodb:DescribeTable"),
        ("UpdateItem", "table", False, Level.WARN, "dynamodb:UpdateItem"),
        ("UpdateItem", "table", True, Level.FAIL, "dynamodb:UpdateItem"),
    ],
)
def test_no_permission(
    refuse: str, name: str, node: bool, level: Level, text: str, elsewhere: Any
) -> None:
    """A look that is not permitted says which action it takes."""
    with server(refuse) as url:
        config = elsewhere(url)
        found = {
            "table": lambda: cloud.table(config, node=node),
            "function": lambda: cloud.function(config),
            "concurrency": lambda: cloud.concurrency(config),
        }[name]()
    assert found.level is level, found
    assert text in found.next_step


def test_a_runner_that_may_only_run(elsewhere: Any) -> None:
    """No quotas, no function, no table: three warnings, and all else is said."""
    with server("account-settings|/functions/|DescribeTable") as url:
        found = seen(elsewhere(url))
    assert found["bucket"].level is Level.OK, found["bucket"]
    assert [f.name for f in found.values() if f.level is not Level.OK] == [
        *("table", "function", "concurrency")
    ]


def test_few_workers(elsewhere: Any) -> None:
    with server() as url:
        found = cloud.concurrency(elsewhere(url))
    assert found.level is Level.WARN
    assert found.what.startswith("10 workers at once")
    assert "Service Quotas" in found.next_step


@pytest.mark.parametrize(
    ("ahead", "level", "text"),
    [
        (0.0, Level.OK, "as AWS's"),
        (30.0, Level.OK, "behind AWS's"),
        (-120.0, Level.WARN, "ahead of AWS's"),
        (900.0, Level.FAIL, "refuses signatures"),
    ],
)
def test_the_clock(ahead: float, level: Level, text: str, elsewhere: Any) -> None:
    with server(ahead=ahead) as url:
        found = cloud.clock(elsewhere(url))
    assert (found.level, text in found.what) == (level, True), found


def test_nobody_answers(elsewhere: Any) -> None:
    found = seen(elsewhere(f"http://127.0.0.1:{free_port()}"))
    assert found["clock"].level is Level.WARN
    assert "does not answer" in found["clock"].what
    assert found["credentials"].level is Level.FAIL
    assert found["AWS"].level is Level.WARN


def test_an_answer_that_is_none_is_one_warning(elsewhere: Any) -> None:
    """An emulation without Lambda, say."""
    before = ANSWERS.pop("/functions/")
    try:
        with server() as url:
            found = seen(elsewhere(url))
    finally:
        ANSWERS["/functions/"] = before
    assert found["function"].level is Level.WARN
    assert "could not be looked at" in found["function"].what
    assert found["concurrency"].what.startswith("10 workers")


def test_a_function_that_is_being_made_or_has_failed(elsewhere: Any) -> None:
    settings = ANSWERS["/functions/"]["Configuration"]
    with server() as url:
        config = elsewhere(url)
        for state, level in (("Pending", Level.WARN), ("Failed", Level.FAIL)):
            settings["State"] = state
            assert cloud.function(config).level is level
        del settings["State"]
        settings["Timeout"] = 3
        assert "killed before most jobs end" in cloud.function(config).what
        settings["Timeout"] = 900
        settings["VpcConfig"] = {"SubnetIds": ["subnet-1"]}
        assert "NAT Gateway" in cloud.function(config).what
        del settings["VpcConfig"]
