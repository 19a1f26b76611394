"""Gathering: what one end of one attempt can be reached at (RFC 8445 section 5.1)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from punchlib.core.candidates import (
    Candidate,
    CandidateType,
    Route,
    TransportAddress,
    usable_host_address,
)
from punchlib.net import sockets
from punchlib.net.stun_client import PunchPort, StunClient

#: Punching ports on each side. The second one makes up for a lost or early SYN of the first.
PORTS = 2


@dataclass
class Ends:
    """Our ends of one attempt: punching ports, and a listener for host candidates.

    Attributes:
        local: our address, for people and old peers.
        ports: the punching ports, mapped ones first.
        listener: accepts on the host candidate's port; None where no peer could use it.
        candidates: what the record tells the peer, in the order of `ports`.
    """

    local: TransportAddress
    ports: list[PunchPort] = field(default_factory=list)
    listener: socket.socket | None = None
    candidates: tuple[Candidate, ...] = ()

    @property
    def external(self) -> TransportAddress:
        """The address that an old peer dials: the first punching port's, as the NAT shows it."""
        for kind in (CandidateType.SRFLX, CandidateType.HOST):
            for candidate in self.candidates:
                if candidate.type is kind:
                    return candidate.address
        return self.local

    def listen_on_ports(self) -> list[socket.socket]:
        """Listeners on the punching ports, for peers whose own port cannot be predicted."""
        return [_listen(port.local.port) for port in self.ports]

    def close(self) -> None:
        for port in self.ports:
            port.close()
        self.ports.clear()
        if self.listener is not None:
            self.listener.close()
            self.listener = None


async def gather(stun: StunClient, routes: Sequence[str], *, on_lambda: bool) -> Ends:
    """Opens fresh ports and learns their mapping.

    Dead STUN servers are no error here: there are fewer candidates then.
    """
    ports: list[PunchPort] = []
    listener: socket.socket | None = None
    try:
        if Route.PUNCHED in routes:
            tasks = [asyncio.create_task(stun.open_port()) for _ in range(PORTS)]
            try:
                for task in tasks:
                    ports.append(await task)
            except BaseException:
                await _discard(tasks[len(ports) :])
                raise
        host = _host(stun, ports, on_lambda)
        candidates = [Candidate(CandidateType.SRFLX, p.mapped) for p in ports if p.mapped]
        if host is not None and Route.HOST in routes:
            listener = _listen(0)
            address = TransportAddress(host, int(listener.getsockname()[1]))
            candidates.append(Candidate(CandidateType.HOST, address))
        local = ports[0].local if ports else TransportAddress(host or "127.0.0.1", 9)
        if listener is not None and not ports:
            local = TransportAddress(local.host, int(listener.getsockname()[1]))
        return Ends(local, ports, listener, tuple(candidates))
    except BaseException:
        for port in ports:
            port.close()
        if listener is not None:
            listener.close()
        raise


def _host(stun: StunClient, ports: list[PunchPort], on_lambda: bool) -> str | None:
    """Our own address, where a peer could reach it.

    Lambda workers never reach each other directly, whatever their interfaces are called; where
    there is no NAT at all, the address that STUN saw is our own.
    """
    if stun.nat.mapping == "none":
        return ports[0].local.host if ports else None
    if on_lambda:
        return None
    if ports and usable_host_address(ports[0].local.host):
        return ports[0].local.host
    return sockets.host_address(sockets.SOMEWHERE) or "127.0.0.1"


async def _discard(tasks: list[asyncio.Task[PunchPort]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, PunchPort):
            result.close()


def _listen(port: int) -> socket.socket:
    sock = sockets.punching_socket(port)
    with contextlib.ExitStack() as on_error:
        on_error.callback(sock.close)
        sock.listen(16)
        on_error.pop_all()
    return sock
