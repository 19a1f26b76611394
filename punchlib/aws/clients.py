"""The one place that makes AWS clients.

boto3 itself reads only AWS_DEFAULT_REGION, retries in its oldest mode and waits a minute for a
connection. Here the region is what `Config` says, so that AWS_REGION counts; AWS_ENDPOINT_URL
(and AWS_ENDPOINT_URL_S3, …) are honoured by boto3 on its own.
"""

from __future__ import annotations

import os
from typing import Any

from punchlib.config import Config

#: Seconds until a connection must stand, and until an answer must begin.
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 60.0
#: Calls in all, the first included; back-off with jitter in between.
MAX_ATTEMPTS = 5

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
    """
    aws = frozenset((k, v) for k, v in os.environ.items() if k.startswith("AWS_"))
    purpose = (service, config.region, repr(sorted(kw.items())), aws)
    if purpose in _kept:
        return _kept[purpose]
    made = _make(service, config, kw)
    if _keeping:
        _kept[purpose] = made
    return made


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

    options: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": READ_TIMEOUT,
        "retries": {"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
        # An idle answer (an invocation takes up to 900 s) must survive NATs that forget.
        "tcp_keepalive": True,
    }
    if service == "s3" and (config.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3")):
        # Local S3 APIs have no wildcard DNS for bucket.host.
        options["s3"] = {"addressing_style": "path"}
    options.update(kw)
    # Not boto3's default session: it would keep the credentials that it saw first, and a fork of
    # the engine may have others.
    return boto3.Session().client(
        service,  # type: ignore[call-overload]
        region_name=config.region,
        config=BotoConfig(**options),
    )
