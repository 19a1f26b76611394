"""What the environment may say, and what is said of the rest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.config import Config, Route, Security, Wire
from punchlib.errors import UsageError

ROOT = Path(__file__).parents[2]
SOURCE = (ROOT / "punchlib/config.py").read_text()
#: Every variable that is read there.
VARIABLES = sorted(set(re.findall(r'env, "(\w+)"|env\.get\("(\w+)"|"(\w+)" in env', SOURCE)))
NAMES = ["".join(found) for found in VARIABLES]


def test_nothing_set_is_the_documented_default() -> None:
    config = Config.from_env({})
    assert config == Config()
    assert (config.region, config.table, config.timeout) == ("us-east-1", "rdv", 300.0)
    assert config.routes == (Route.HOST, Route.PUNCHED, Route.S3)
    assert (config.wire, config.security) == (Wire.AUTO, Security.ENCRYPTED)


@pytest.mark.parametrize(
    ("env", "field", "value"),
    [
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "x"}, "region", "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "region", "eu-west-1"),
        ({"AWS_ENDPOINT_URL": ""}, "endpoint_url", None),
        ({"PASH_NO_HOLEPUNCH": "1"}, "routes", (Route.HOST, Route.S3)),
        ({"PASH_NO_HOLEPUNCH": "0"}, "routes", tuple(Route)),
        ({"PUNCH_ROUTES": " s3 , Host,"}, "routes", (Route.HOST, Route.S3)),
        ({"PASH_STUN_TIMEOUT_MS": "500"}, "stun_timeout", 0.5),
        ({"PASH_STUN_SERVER": "a:1, b"}, "stun_servers", (("a", 1), ("b", 3478))),
        ({"PASH_STUN_SERVER": "stun:a:1,stun:b"}, "stun_servers", (("a", 1), ("b", 3478))),
        ({"PASH_STUN_SERVER": "stun://a:1/,STUN:b"}, "stun_servers", (("a", 1), ("b", 3478))),
        ({"PASH_STUN_SERVER": "stun:1,stun"}, "stun_servers", (("stun", 1), ("stun", 3478))),
        ({"PASH_STUN_SERVER": "stun:a:1?transport=tcp"}, "stun_servers", (("a", 1),)),
        ({"PUBLIC_ADDR": "192.0.2.1"}, "public_ip", "192.0.2.1"),
        ({"PUNCH_JOB_KEY": "00ff"}, "job_key", b"\x00\xff"),
        ({"LEASH_ON_LAMBDA": ""}, "on_lambda", True),
        ({"PUNCH_DEBUG": "no"}, "debug", False),
    ],
)
def test_what_a_variable_means(env: dict[str, str], field: str, value: object) -> None:
    assert getattr(Config.from_env(env), field) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUNCH_ROUTES", "host,moon"),
        ("PUNCH_WIRE", "v3"),
        ("PUNCH_SECURITY", "none"),
        ("PUNCH_TIMEOUT", "-1"),
        ("PUNCH_TIMEOUT", "nan"),
        ("PUNCH_TIMEOUT", "soon"),
        ("PUNCH_NODE", "n" * 201),
        ("PUNCH_NODE", "a\nb"),
        ("PUNCH_NODE", "../a"),
        ("PASH_STUN_SERVER", "a:0"),
        ("PASH_STUN_SERVER", "stun:"),
        ("PASH_STUN_SERVER", "stun:a:b"),
        ("PASH_STUN_SERVER", "http://a:1"),
        ("PASH_STUN_SERVER", "turn:a:1"),
        ("PASH_STUN_SERVER", "user@a:1"),
        ("PASH_STUN_SERVER", "[2001:db8::1]:3478"),
        ("PASH_STUN_SERVER", "2001:db8::1"),
        ("PASH_STUN_SERVER", "stun:[2001:db8::1]:3478"),
        ("PASH_STUN_SERVER", "a:²"),
        ("PASH_STUN_SERVER", f"a:{'9' * 5000}"),
        ("PUNCH_JOB_KEY", "xy"),
    ],
)
def test_what_cannot_be_understood_is_named(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name) as refused:
        Config.from_env({name: value})
    assert refused.value.next_step


def test_a_job_key_is_never_shown() -> None:
    with pytest.raises(UsageError) as refused:
        Config.from_env({"PUNCH_JOB_KEY": "secret!"})
    assert "secret" not in str(refused.value)


def test_no_route_left() -> None:
    with pytest.raises(UsageError, match="leave no route"):
        Config.from_env({"PUNCH_ROUTES": "punched", "PASH_NO_HOLEPUNCH": "1"})


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=8) | st.from_regex(r"\w+:\d+")))
def test_any_environment_is_read_or_refused(env: dict[str, str]) -> None:
    try:
        config = Config.from_env(env)
    except UsageError as error:
        assert any(name in error.message for name in env)
        return
    assert config.routes
    assert 0 < config.timeout < 1e9


def test_every_variable_is_in_the_quickstart() -> None:
    documented = (ROOT / "docs/quickstart.md").read_text()
    # What the machine or AWS's own tools set.
    internal = {"AWS_DEFAULT_REGION", "AWS_LAMBDA_FUNCTION_NAME", "AWS_PROFILE"}
    internal |= {"AWS_DEFAULT_PROFILE", "AWS_CONFIG_FILE", "HOME"}
    assert [name for name in NAMES if f"`{name}" not in documented and name not in internal] == []
