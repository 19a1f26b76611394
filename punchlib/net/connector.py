"""What the connections of one process share, and `establish`, which makes one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from punchlib.config import Config
from punchlib.core.events import Event
from punchlib.core.handshake import Identity
from punchlib.net.connection import Connection, Fallback, Spec
from punchlib.net.descriptors import Allowance
from punchlib.net.establishing import Establishing, Shared
from punchlib.net.stun_client import StunClient
from punchlib.rendezvous.store import RendezvousStore
from punchlib.rendezvous.watcher import Watcher, Watching


class Connector:
    """Establishes the connections of one process; they share STUN, rendezvous and identity.

    Args:
        config: the process's configuration.
        store: the rendezvous.
        identity: this process's certificate, or None when only `authenticated` is spoken.
        fallback: the S3 route; None where there is no bucket.
        report: is told what happens to each connection (`core/events.py`).
        wall: the time of day; no decision depends on it.
        watcher: waits for peers' records; None for one that reads the store itself.
        allowance: what each connection may hold, where descriptors are few.
    """

    def __init__(
        self,
        config: Config,
        store: RendezvousStore,
        *,
        identity: asyncio.Future[Identity] | None = None,
        fallback: Fallback | None = None,
        report: Callable[[Event], None] = lambda event: None,
        wall: Callable[[], float] = time.time,
        watcher: Watching | None = None,
        allowance: Allowance | None = None,
    ) -> None:
        watcher = watcher or Watcher(store)
        allowance = allowance or Allowance()
        turns = asyncio.Semaphore(allowance.turns) if allowance.turns is not None else None
        stun = StunClient(config.stun_servers, config.stun_timeout, config.public_ip)
        self._shared = Shared(
            config,
            store,
            identity,
            fallback,
            report,
            watcher,
            stun,
            wall,
            ports=allowance.ports,
            turns=turns,
        )

    async def establish(self, spec: Spec) -> Connection:
        """Connects one end to the other.

        Raises:
            RendezvousTimeout: the peer did not register before the deadline.
            NoRoute: it did, but no route worked.
            PeerNotVerified: it cannot be trusted, or speaks another version.
            RendezvousError: the store cannot be reached.
        """
        return await Establishing(self._shared, spec).run()

    async def close(self) -> None:
        await self._shared.watcher.close()
        await self._shared.stun.close()
