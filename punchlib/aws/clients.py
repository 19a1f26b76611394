"""The one place that makes AWS clients.

boto3 itself reads only AWS_DEFAULT_REGION, retries in its oldest mode and waits a minute for a
connection. Here the region is what `Config` says, so that AWS_REGION counts; AWS_ENDPOINT_URL
(and AWS_ENDPOINT_URL_S3, …) are honoured by boto3 on its own.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from typing import Any

from punchlib.aws import errors
from punchlib.config import Config

#: Seconds until a connection must stand, and until an answer must begin.
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 60.0
#: Calls in all, the first included; back-off with jitter in between.
MAX_ATTEMPTS = 5

#: Idle connections that a client keeps. One number for most, so that they share a client.
POOL = 16

#: An invocation is silent for up to 900 s, and NATs forget a silent connection after 350 s.
#: botocore switches keep-alive on and leaves the kernel's times: a first probe after 7,200 s.
KEEP_ALIVE = (
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 8),
)

#: Variables that no client reads when it is made: each worker and each script has its own.
_NOT_READ = ("AWS_LAMBDA_", "AWS_BUCKET", "AWS_EXECUTION_ENV")
#: Variables without AWS_ that one does read (in lower case: a proxy may have both).
_READ_TOO = frozenset(
    ("home", "http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle")
)
_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}

_kept: dict[object, Any] = {}
_keeping = False


def keep() -> None:
    """Keeps every client made from now on, for the forks of this process (the node engine).

    Making one takes 100 ms. A client that was only made has no connection, so a fork may use it.
    """
    global _keeping
    _keeping = True


def client(service: str, config: Config, **kw: Any) -> Any:
    """Makes a boto3 client.

    Args:
        service: "s3", "dynamodb", "lambda", "logs", …
        config: region and endpoint come from here.
        **kw: options of `botocore.config.Config` that replace ours, for instance
            `read_timeout=920` or `max_pool_connections=64`.

    Returns:
        The client. It is untyped: boto3 builds its methods at run time.

    Raises:
        UsageError: the user's AWS environment is wrong; says what to mend.
    """
    if not _keeping:
        return _make(service, config, kw)
    around = json.dumps(surroundings(), sort_keys=True)
    purpose = (service, config.region, config.endpoint_url, repr(sorted(kw.items())), around)
    if purpose not in _kept:
        _kept[purpose] = _make(service, config, kw)
    return _kept[purpose]


def surroundings() -> dict[str, Any]:
    """What a client takes from its surroundings: equal for two callers who may share one.

    Not every AWS_ variable: a Lambda worker has some of its own, which no client reads, and a
    client made anew costs a process more than all its other work.

    Returns:
        `variables`, by name, and `files`, a stamp of each, as plain data. It holds secrets.
    """
    variables = {
        name: value
        for name, value in os.environ.items()
        if (name.startswith("AWS_") and not name.startswith(_NOT_READ)) or name.lower() in _READ_TOO
    }
    files = [
        os.environ.get(name) or os.path.expanduser(default)  # noqa: PTH111 (a hot path)
        for name, default in _FILES.items()
    ]
    return {"variables": variables, "files": list(map(_stamp, files))}


def _stamp(path: str) -> list[int]:
    """Differs when a file was changed: static credentials are replaced there."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return []
    if stat.S_ISCHR(found.st_mode) or (stat.S_ISREG(found.st_mode) and not found.st_size):
        return []  # /dev/null, an empty file: nothing is said there
    return [found.st_ino, found.st_mtime_ns, found.st_size]


def rehearse(client: Any, operation: str, **request: Any) -> None:
    """Goes through a call up to the network, for the forks of this process.

    The first call of a client resolves its endpoint and compiles its patterns: 15 ms.
    """
    from botocore.awsrequest import AWSResponse, HeadersDict
    from botocore.exceptions import BotoCoreError

    class Empty:
        def stream(self, **_: object) -> list[bytes]:
            return [b"{}"]

    def answer(request: Any, **_: object) -> Any:
        headers: Any = HeadersDict()
        return AWSResponse(request.url, 200, headers, Empty())

    client.meta.events.register("before-send", answer)
    try:
        getattr(client, operation)(**request)
    except BotoCoreError:
        return  # No credentials at this time: the first fork that has some will pay.
    finally:
        client.meta.events.unregister("before-send", answer)


def _make(service: str, config: Config, kw: dict[str, Any]) -> Any:
    import boto3
    from botocore.config import Config as BotoConfig
    from botocore.exceptions import BotoCoreError

    options: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": READ_TIMEOUT,
        "max_pool_connections": POOL,
        "retries": {"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
        "tcp_keepalive": True,  # and KEEP_ALIVE says when
    }
    if service == "s3" and (config.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3")):
        # Local S3 APIs have no wildcard DNS for bucket.host.
        options["s3"] = {"addressing_style": "path"}
    options.update(kw)
    # Not boto3's default session: it would keep the credentials that it saw first, and a fork of
    # the engine may have others.
    try:
        made: Any = boto3.Session().client(
            service,  # type: ignore[call-overload]
            region_name=config.region,
            config=BotoConfig(**options),
        )
    except (BotoCoreError, ValueError) as error:
        raise errors.misconfigured(error) from error
    # botocore has no option for it. Its pools, a proxy's too, take this list when they connect.
    made._endpoint.http_session._socket_options.extend(KEEP_ALIVE)
    return made
