"""The one place that reads the environment.

The names with PASH_ and AWS_ are the ones that people already use; ours begin with PUNCH_.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from punchlib.errors import UsageError
from punchlib.names import check_name


class Route(StrEnum):
    """The ways that a connection may take."""

    HOST = "host"
    PUNCHED = "punched"
    S3 = "s3"


class Wire(StrEnum):
    """Which peers are spoken with."""

    AUTO = "auto"  # an old (v1) one too, where nothing forbids it
    V1 = "v1"  # the same; kept because scripts say it
    V2 = "v2"


class Security(StrEnum):
    """The least that an end accepts; the first is the stronger."""

    ENCRYPTED = "encrypted"
    AUTHENTICATED = "authenticated"


Choice = TypeVar("Choice", bound=StrEnum)

#: STUN over TCP and UDP on these at the time of writing. Several: one may be down.
DEFAULT_STUN_SERVERS = (
    ("turn.cloudflare.com", 3478),
    ("stun.nextcloud.com", 443),
    ("global.turn.twilio.com", 3478),
)


@dataclass(frozen=True)
class Config:
    """What the environment says, parsed and checked once.

    Attributes:
        region: AWS_REGION, AWS_DEFAULT_REGION, the profile's own (~/.aws/config), us-east-1: the
            first that there is. Only the first is not boto3's.
        endpoint_url: AWS_ENDPOINT_URL; None means AWS itself.
        bucket: AWS_BUCKET; None where it is not set.
        table: PUNCH_TABLE; the DynamoDB rendezvous table.
        function: PUNCH_FUNCTION; the Lambda function that runs scripts.
        job_id: PASH_JOB_ID; scopes the rendezvous keys of one run ("" outside `punch run`).
        node: PUNCH_NODE; this node's name in failures; `punch run` gives its script's id.
        job_key: PUNCH_JOB_KEY, hex; the shared secret of one run (b"" outside `punch run`).
        stun_servers: PASH_STUN_SERVER, "host[:port][,…]", also as "stun:host[:port]".
        stun_timeout: PASH_STUN_TIMEOUT_MS, in seconds here.
        public_ip: PASH_PUBLIC_IP or PUBLIC_ADDR; overrides the address that STUN would tell.
        routes: PUNCH_ROUTES, a subset of host,punched,s3; their order says nothing.
        wire: PUNCH_WIRE; `auto` accepts an old (v1) peer only where there is no job key.
        security: PUNCH_SECURITY; the least that this end accepts.
        security_is_set: somebody wrote PUNCH_SECURITY; then `encrypted` refuses old peers too.
        timeout: PUNCH_TIMEOUT; seconds to wait for the peer to register.
        stall_timeout: PUNCH_STALL_TIMEOUT; seconds after which a connected peer that says nothing
            is given up, though its machine answers. The same on all nodes.
        on_lambda: this machine is an AWS Lambda worker: no host candidates.
        debug: PUNCH_DEBUG; tracebacks and every step on stderr.
    """

    region: str = "us-east-1"
    endpoint_url: str | None = None
    bucket: str | None = None
    table: str = "rdv"
    function: str = "lambda"
    job_id: str = ""
    node: str = ""
    job_key: bytes = b""
    stun_servers: tuple[tuple[str, int], ...] = DEFAULT_STUN_SERVERS
    stun_timeout: float = 8.0
    public_ip: str | None = None
    routes: tuple[Route, ...] = tuple(Route)
    wire: Wire = Wire.AUTO
    security: Security = Security.ENCRYPTED
    security_is_set: bool = False
    timeout: float = 300.0
    stall_timeout: float = 300.0
    on_lambda: bool = False
    debug: bool = False

    @property
    def v1_refused_by(self) -> str:
        """The setting that forbids an old (v1) peer, for people; "" where none does."""
        if self.wire == Wire.V2:
            return "PUNCH_WIRE=v2"
        if self.security_is_set and self.security == Security.ENCRYPTED:
            return "PUNCH_SECURITY=encrypted"
        return ""

    def scoped(self, key: str) -> str:
        """A KEY's name in the rendezvous table: one run does not meet another."""
        return f"{self.job_id}/{key}" if self.job_id else key

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Config:
        """Reads the environment.

        Raises:
            UsageError: a value cannot be understood; it names the variable and the form.
        """
        env = os.environ if env is None else env
        routes = _choices(env, "PUNCH_ROUTES", Route)
        if _flag(env, "PASH_NO_HOLEPUNCH"):
            routes = tuple(r for r in routes if r is not Route.PUNCHED)
        if not routes:
            raise UsageError(
                "PUNCH_ROUTES and PASH_NO_HOLEPUNCH leave no route",
                next_step="allow at least one of host, punched, s3",
            )
        return cls(
            region=_region(env),
            endpoint_url=env.get("AWS_ENDPOINT_URL") or None,
            bucket=env.get("AWS_BUCKET") or None,
            table=env.get("PUNCH_TABLE") or cls.table,
            function=env.get("PUNCH_FUNCTION") or cls.function,
            job_id=env.get("PASH_JOB_ID", ""),
            node=_name(env, "PUNCH_NODE"),
            job_key=_hex(env, "PUNCH_JOB_KEY"),
            stun_servers=_servers(env, "PASH_STUN_SERVER") or DEFAULT_STUN_SERVERS,
            stun_timeout=_number(env, "PASH_STUN_TIMEOUT_MS", 8000.0) / 1000.0,
            public_ip=env.get("PASH_PUBLIC_IP") or env.get("PUBLIC_ADDR") or None,
            routes=routes,
            wire=_choice(env, "PUNCH_WIRE", Wire.AUTO),
            security=_choice(env, "PUNCH_SECURITY", Security.ENCRYPTED),
            security_is_set=bool(env.get("PUNCH_SECURITY", "").strip()),
            timeout=_number(env, "PUNCH_TIMEOUT", 300.0),
            stall_timeout=_number(env, "PUNCH_STALL_TIMEOUT", 300.0),
            on_lambda="LEASH_ON_LAMBDA" in env or "AWS_LAMBDA_FUNCTION_NAME" in env,
            debug=_flag(env, "PUNCH_DEBUG"),
        )


def _name(env: Mapping[str, str], variable: str) -> str:
    text = env.get(variable, "")
    return check_name(text, variable) if text else ""


def _region(env: Mapping[str, str]) -> str:
    return (
        env.get("AWS_REGION")
        or env.get("AWS_DEFAULT_REGION")
        or _region_of_the_profile(env)
        or Config.region
    )


def _region_of_the_profile(env: Mapping[str, str]) -> str:
    """What boto3 would find in its files, without its import: nodes have none, and pay nothing."""
    profile = env.get("AWS_PROFILE") or env.get("AWS_DEFAULT_PROFILE") or "default"
    home = env.get("HOME", "")
    # As in botocore, what the credentials file says wins.
    for name, file, section in (
        ("AWS_SHARED_CREDENTIALS_FILE", f"{home}/.aws/credentials", profile),
        (
            "AWS_CONFIG_FILE",
            f"{home}/.aws/config",
            profile if profile == "default" else f"profile {profile}",
        ),
    ):
        path = os.path.expanduser(env.get(name) or file)  # noqa: PTH111 (a hot path)
        if not os.path.isfile(path):  # noqa: PTH113
            continue
        import configparser

        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue  # boto3 says so, better than we could
        if found := parser.get(section, "region", fallback=""):
            return found
    return ""


def _flag(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "").strip().lower() not in ("", "0", "false", "no")


def _choice(env: Mapping[str, str], name: str, default: Choice) -> Choice:
    value = env.get(name, "").strip().lower()
    allowed = type(default)
    try:
        return allowed(value) if value else default
    except ValueError:
        raise UsageError(
            f"{name}={value!r} is not known", next_step=f"use {' or '.join(allowed)}"
        ) from None


def _choices(env: Mapping[str, str], name: str, allowed: type[Choice]) -> tuple[Choice, ...]:
    text = env.get(name, "").strip().lower()
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        if part not in set(allowed):
            raise UsageError(
                f"{name} names {part!r}, which is no route",
                next_step=f"use a comma-separated subset of {','.join(allowed)}",
            )
    return tuple(choice for choice in allowed if choice in parts or not text)


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise UsageError(f"{name}={text!r} is not a positive number", next_step="set a number")
    return value


def _hex(env: Mapping[str, str], name: str) -> bytes:
    try:
        return bytes.fromhex(env.get(name, ""))
    except ValueError:
        # The value is a secret: it is not shown.
        raise UsageError(
            f"{name} is not hexadecimal", next_step="use `punch run`, which makes it"
        ) from None


def _servers(env: Mapping[str, str], name: str) -> tuple[tuple[str, int], ...]:
    parts = (part.strip() for part in env.get(name, "").split(","))
    return tuple(_server(part, name) for part in parts if part)


def _server(text: str, name: str) -> tuple[str, int]:
    """One server: HOST, HOST:PORT, and as URIs, with or without slashes (RFC 7064)."""
    scheme, _, rest = text.partition(":")
    # `stun` may also be a host, with a port.
    scheme = "" if rest.isdigit() or not rest else scheme.lower()
    address = (rest.removeprefix("//") if scheme == "stun" else text).partition("?")[0].rstrip("/")
    if scheme in ("stuns", "turn", "turns"):
        raise UsageError(
            f"{name} names {text!r}, which is not plain STUN", next_step="use stun:HOST:PORT"
        )
    if "[" in address or address.count(":") > 1:
        raise UsageError(
            f"{name} names {text!r}: an IPv6 address, and punching is done over IPv4",
            next_step="name a server that has an IPv4 address",
        )
    host, colon, port = address.rpartition(":")
    if not colon:
        host, port = address, "3478"
    # `isdigit` is also true of "²", and int() refuses thousands of digits.
    is_port = port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536
    if not host or not is_port or any(c.isspace() or c in "/@" for c in host):
        raise UsageError(
            f"{name} names {text!r}, which is not host:port",
            next_step="for instance PASH_STUN_SERVER=stun.example.org:3478",
        )
    return host, int(port)
