"""The AWS API on loopback: MiniStack, with the two services that a job uses, and who-am-I.

As it comes, MiniStack also starts an SFTP server and two schedulers, ends the containers of other
MiniStacks, takes any credentials and lets every web page in. Here it takes requests that are
signed by the one access key of this run; a browser's preflight is not.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any

_Scope = dict[str, Any]
_Receive = Callable[[], Awaitable[dict[str, Any]]]
_Send = Callable[[dict[str, Any]], Awaitable[None]]

_CREDENTIAL = re.compile(rb"Credential=([^/,\s]+)/")


def serve(listener: socket.socket, access_key: str) -> None:
    """Serves S3 and DynamoDB until the process is killed.

    Args:
        listener: listens already; callers wait in its queue until MiniStack is up.
        access_key: the only key that may call.
    """
    host, port = listener.getsockname()
    os.environ.update(
        SERVICES="s3,dynamodb,sts",
        GATEWAY_PORT=str(port),
        BIND_HOST=host,
        DOCKER_HOST="unix:///nonexistent",
        LOG_LEVEL="WARNING",
    )
    from hypercorn.asyncio import serve as run
    from hypercorn.config import Config
    from ministack.app import app
    from ministack.services import dynamodb, s3  # noqa: F401 (it would at the first request)

    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.keep_alive_timeout = 75
    config.loglevel = "WARNING"
    asyncio.run(run(_ours_alone(app, access_key.encode()), config))


def _ours_alone(app: Any, access_key: bytes) -> Any:
    async def guarded(scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http" and _is_ours(scope, access_key):
            await app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"not signed by this run's key"})

    return guarded


async def _lifespan(receive: _Receive, send: _Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def _is_ours(scope: _Scope, access_key: bytes) -> bool:
    signed = dict(scope["headers"]).get(b"authorization", b"")
    found = _CREDENTIAL.search(signed)
    return found is not None and hmac.compare_digest(found[1], access_key)
