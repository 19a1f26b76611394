"""What is asked of the connector, and what it returns."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from punchlib.config import Route
from punchlib.core.events import Spec
from punchlib.core.handshake import Terms
from punchlib.core.timing import TIMING, Timing
from punchlib.net import sockets
from punchlib.net.channel import Channel
from punchlib.stopping import doing

__all__ = ["Connection", "Fallback", "Spec"]


@dataclass
class Connection:
    """An established connection; `async with` it, and it is closed and forgotten at the end.

    Attributes:
        channel: frames to the verified peer; None with an old peer.
        raw: the bare socket to an old (v1) peer; None otherwise.
        route: host, punched or s3.
        attempt: the attempt that made it, from 1.
        technique: how it was made, in words.
        local, remote: the two ends as this machine sees them.
        registered_at, met_at, connected_at: loop times, seconds.
        timing: the waiting times of its stream.
        node: our name, for the peer to say who failed; "" where we have none.
    """

    channel: Channel | None
    raw: socket.socket | None
    route: Route
    attempt: int
    technique: str
    local: str
    remote: str
    registered_at: float
    met_at: float
    connected_at: float
    _leave: Callable[[BaseException | None], Awaitable[None]] = field(repr=False)
    timing: Timing = TIMING
    node: str = ""

    @property
    def setup_ms(self) -> float:
        """From when both ends were registered to verified, in milliseconds."""
        return (self.connected_at - self.met_at) * 1000

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        self.close()
        await self.forget(error)

    def close(self) -> None:
        """Lets go of the connection, at once."""
        if self.channel is not None:
            self.channel.close()
        if self.raw is not None:
            sockets.abort(self.raw)  # where no stream has closed it: a FIN would be an empty one

    async def forget(self, error: BaseException | None = None) -> None:
        """Takes our record back; it has served.

        Args:
            error: why the stream failed; a peer that never learned that we chose this connection
                is told so.
        """
        with doing(lambda: f"taking its record back, after {error or 'a good end'}"):
            await self._leave(error)


class Fallback(Protocol):
    """A route that needs no reachability (S3)."""

    async def open(self, terms: Terms) -> Channel:
        """A channel to the peer, verified; waits for it."""
        ...
