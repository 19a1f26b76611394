"""The connector of a process, with everything it needs: store, identity, fallback.

What is slow to make is made once in the node engine, and every fork finds it here (`warm_up`).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from punchlib.config import Config, Route, Security
from punchlib.core.events import Event
from punchlib.core.handshake import Identity
from punchlib.errors import PunchError
from punchlib.net import s3_route
from punchlib.net.connector import Connector
from punchlib.net.descriptors import Allowance
from punchlib.rendezvous import dynamodb
from punchlib.rendezvous.machine_service import StoreService, dispatch
from punchlib.rendezvous.machine_store import MachineStore
from punchlib.rendezvous.store import RendezvousStore, Slot
from punchlib.rendezvous.watcher import Watching

#: Leads to the machine's store, in the forks of the node engine; None elsewhere.
control: socket.socket | None = None
_spare: Identity | None = None


def open_connector(
    config: Config,
    *,
    store: RendezvousStore | None = None,
    report: Callable[[Event], None] = lambda event: None,
    allowance: Allowance | None = None,
) -> Connector:
    """A connector on the running loop; the caller closes it.

    Args:
        config: what the environment says.
        store: the rendezvous; DynamoDB by default.
        report: is told what happens to each connection (`core/events.py`).
        allowance: what each connection may hold, where descriptors are few.
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
    watcher: Watching | None = None
    if store is None:
        store = dynamodb.DynamoDbStore(
            lambda: dynamodb_client(config), table=config.table, patience=config.timeout
        )
        if control is not None:
            store = watcher = MachineStore(store, control, _way_to(config))
    fallback = None
    if config.bucket and Route.S3 in config.routes:
        fallback = s3_route.S3Route(config, lambda: s3_client(config))
    return Connector(
        config,
        store,
        identity=identity,
        fallback=fallback,
        report=report,
        watcher=watcher,
        allowance=allowance,
    )


def serve_machine(control: socket.socket) -> None:
    """Serves the machine's store until the last process that could ask has ended."""
    dispatch(control, _serve_way)


def _way_to(config: Config) -> dict[str, Any]:
    """What tells one store, and the way to it, from another; equal for those who may share it."""
    from punchlib.aws.clients import surroundings

    own = {"table": config.table, "region": config.region, "patience": config.timeout}
    return {**own, **surroundings()}


def _serve_way(control: socket.socket, way: dict[str, Any]) -> None:
    import uvloop

    path = os.environ.get("PATH", os.defpath)  # for a profile's credential_process
    os.environ.clear()
    os.environ.update(way["variables"], PATH=path)
    config = replace(Config.from_env(), region=way["region"])

    async def run() -> None:
        store = dynamodb.DynamoDbStore(
            lambda: dynamodb_client(config), table=way["table"], patience=way["patience"]
        )
        await StoreService(control, store).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def dynamodb_client(config: Config) -> Any:
    """A client that gives up early: `DynamoDbStore` tries again, and knows for how long."""
    from punchlib.aws import quick

    return quick.client(
        "dynamodb", config, attempts=2, pool=dynamodb.THREADS, connect_timeout=3, read_timeout=5
    )


def s3_client(config: Config) -> Any:
    """The S3 route's client."""
    from punchlib.aws import quick

    return quick.client("s3", config)


def warm_up() -> None:
    """Does once, in the engine, what the fork of every stream would have to do."""
    import encodings.idna  # noqa: F401 (imported on the first look-up of a name)

    import punchlib.aws.quick  # noqa: F401

    renew()


def warm_up_boto3() -> None:
    """The same for what needs boto3: all tools of S3, and streams where AWS is not `ordinary`."""
    from punchlib.aws import clients, quick

    try:
        config = Config.from_env()
        clients.rehearse(clients.client("s3", config), "get_object", Bucket="bucket", Key="key")
        if not quick.ordinary(config):
            client = dynamodb_client(config)
            slot = Slot("key", "0")
            clients.rehearse(client, "update_item", **dynamodb.registration("rdv", slot, "{}", 0))
            clients.rehearse(client, "batch_get_item", **dynamodb.batch("rdv", ["key"]))
    except PunchError:
        return  # Our environment is wrong. A fork will say so, or has another one.


def renew() -> None:
    """Makes the identity of the engine's next fork: every process has one of its own."""
    global _spare
    _spare = Identity.generate()
