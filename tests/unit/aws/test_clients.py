"""The engine's kept clients: shared by callers who may share one, and by nobody else."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from punchlib.aws import clients
from punchlib.config import Config


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This process keeps clients as the engine does, and forgets them in the end."""
    monkeypatch.setattr(clients, "_kept", {})
    monkeypatch.setattr(clients, "_keeping", True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "first")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def s3() -> Any:
    return clients.client("s3", Config.from_env())


def signed_by(client: Any) -> str:
    """Whose credentials it signs with, and where it sends to."""
    url = client.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    return str(url)


@pytest.mark.parametrize(
    "name",
    ["AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_BUCKET", "PASH_JOB_ID"],
)
def test_what_no_client_reads_makes_none_anew(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "127.1.2.3:9001")
    kept = s3()
    monkeypatch.setenv(name, "127.1.2.4:9001")
    assert s3() is kept


@pytest.mark.parametrize(
    ("name", "value", "seen"),
    [
        ("AWS_ACCESS_KEY_ID", "second", "second"),
        ("AWS_SESSION_TOKEN", "a-token", "a-token"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:4566", "127.0.0.1:4566"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.2:4566", "127.0.0.2:4566"),
        ("AWS_REGION", "eu-north-1", "eu-north-1"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "true", "dualstack"),
    ],
)
def test_what_a_client_depends_on_makes_another(
    name: str, value: str, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials that rotate in the environment, as on a warm worker, are the new ones at once."""
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    kept = s3()
    assert seen not in signed_by(kept)
    monkeypatch.setenv(name, value)
    assert seen in signed_by(s3())


def test_credentials_replaced_in_their_file_are_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / ".aws" / "credentials"
    file.parent.mkdir()
    for user in ("anna", "bert", "anna"):
        file.write_text(f"[default]\naws_access_key_id = {user}\naws_secret_access_key = s\n")
        assert user in signed_by(s3())
    assert s3() is s3()


def test_another_home_is_another_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = s3()
    monkeypatch.setenv("HOME", str(tmp_path / "other"))
    assert s3() is not kept


def test_only_the_engine_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_keeping", False)
    assert s3() is not s3()


def test_a_connection_that_waits_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real connection: an invocation's, silent for up to 900 s."""
    connection = clients.client(
        "lambda", Config(region="us-east-1", endpoint_url="http://127.0.0.1:1")
    )._endpoint.http_session._manager.connection_from_url("http://127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        single = connection.ConnectionCls(
            "127.0.0.1", server.getsockname()[1], **connection.conn_kw
        )
        single.connect()
        assert single.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle = single.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        single.close()
    assert idle < 350  # seconds, after which a NAT forgets it


@pytest.mark.parametrize(
    ("files", "profile", "region"),
    [
        ({}, "", "us-east-1"),
        ({"config": "[default]\nregion = eu-west-1\n"}, "", "eu-west-1"),
        ({"config": "[profile p]\nregion=eu-west-2\n[default]\nregion=x\n"}, "p", "eu-west-2"),
        ({"config": "[default]\nregion=a\n", "credentials": "[default]\nregion=b\n"}, "", "b"),
        ({"config": "[default]\noutput = json\n"}, "", "us-east-1"),
        ({"config": "s3 =\n  nested"}, "", "us-east-1"),
    ],
)
def test_the_region_is_boto3s(
    files: dict[str, str],
    profile: str,
    region: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_DEFAULT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".aws").mkdir()
    for name, text in files.items():
        (tmp_path / ".aws" / name).write_text(text)
    if profile:
        monkeypatch.setenv("AWS_PROFILE", profile)

    assert Config.from_env().region == region
    if region != "us-east-1":
        import boto3

        assert boto3.Session().region_name == region
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert Config.from_env().region == "eu-north-1"
