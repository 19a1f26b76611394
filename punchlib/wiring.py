"""The connector of a process, with everything it needs: store, identity, fallback.

What is slow to make is made once in the node engine, and every fork finds it here (`warm_up`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from punchlib.config import Config, Route, Security
from punchlib.core.events import Event
from punchlib.core.handshake import Identity
from punchlib.net import s3_route
from punchlib.net.connector import Connector
from punchlib.rendezvous import dynamodb
from punchlib.rendezvous.store import RendezvousStore, Slot

_spare: Identity | None = None


def open_connector(
    config: Config,
    *,
    store: RendezvousStore | None = None,
    report: Callable[[Event], None] = lambda event: None,
) -> Connector:
    """A connector on the running loop; the caller closes it.

    Args:
        config: what the environment says.
        store: the rendezvous; DynamoDB by default.
        report: is told what happens to each connection (`core/events.py`).
    """
    loop = asyncio.get_running_loop()
    identity: asyncio.Future[Identity] | None = None
    if config.security == Security.ENCRYPTED:
        if _spare is None:
            # Importing `cryptography` takes 50 ms: beside the loop.
            identity = loop.run_in_executor(None, Identity.generate)
        else:
            identity = loop.create_future()
            identity.set_result(_spare)
    if store is None:
        store = dynamodb.DynamoDbStore(
            lambda: dynamodb_client(config), table=config.table, patience=config.timeout
        )
    fallback = None
    if config.bucket and Route.S3 in config.routes:
        fallback = s3_route.S3Route(config, lambda: s3_client(config))
    return Connector(config, store, identity=identity, fallback=fallback, report=report)


def dynamodb_client(config: Config) -> Any:
    """A client that gives up early: `DynamoDbStore` tries again, and knows for how long."""
    from punchlib.aws.clients import client

    return client(
        "dynamodb",
        config,
        max_pool_connections=dynamodb.THREADS,
        connect_timeout=3,
        read_timeout=5,
        retries={"mode": "standard", "total_max_attempts": 2},
    )


def s3_client(config: Config) -> Any:
    """The S3 route's client."""
    from punchlib.aws.clients import client

    return client("s3", config)


def warm_up() -> None:
    """Does once, in the engine, what every fork would have to do: imports, clients, OpenSSL."""
    import encodings.idna  # noqa: F401 (imported on the first look-up of a name)

    from punchlib.aws.clients import rehearse

    renew()
    config = Config.from_env()
    client = dynamodb_client(config)
    rehearse(client, "update_item", **dynamodb.registration("rdv", Slot("key", "0"), "{}", 0))
    rehearse(client, "batch_get_item", **dynamodb.batch("rdv", ["key"]))
    rehearse(s3_client(config), "get_object", Bucket="bucket", Key="key")


def renew() -> None:
    """Makes the identity of the engine's next fork: every process has one of its own."""
    global _spare
    _spare = Identity.generate()
