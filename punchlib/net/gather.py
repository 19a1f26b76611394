"""Gathering: what one end of one attempt can be reached at (RFC 8445 section 5.1)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from punchlib.config import Route
from punchlib.core.candidates import (
    Candidate,
    CandidateType,
    TransportAddress,
    usable_host_address,
)
from punchlib.core.records import Filtering, Mapping, Nat
from punchlib.net import sockets
from punchlib.net.stun_client import PunchPort, StunClient


@dataclass
class Ends:
    """Our ends of one attempt: punching ports, and a listener for host candidates.

    Attributes:
        ports: the punching ports.
        local: our address, for people and old peers.
        listener: accepts on the host candidate's port; None where no peer could use it.
        candidates: what the record tells the peer; the n-th srflx is the n-th port's.
        nat: what is known of our NAT.
        settled: all of this is decided.
    """

    ports: list[PunchPort]
    local: TransportAddress = field(default=TransportAddress("127.0.0.1", 9))
    listener: socket.socket | None = None
    candidates: tuple[Candidate, ...] = ()
    nat: Nat = field(default=Nat())
    settled: bool = False

    @property
    def lasting(self) -> bool:
        """Whether these ends serve for another attempt: no NAT could remember the last one."""
        open_to_all = (self.nat.mapping, self.nat.filtering) == (
            Mapping.NONE,
            Filtering.INDEPENDENT,
        )
        return self.listener is not None and (not self.ports or open_to_all)

    @property
    def external(self) -> TransportAddress:
        """The address that an old peer dials: the first punching port's, as the NAT shows it."""
        for kind in (CandidateType.SRFLX, CandidateType.HOST):
            for candidate in self.candidates:
                if candidate.type is kind:
                    return candidate.address
        return self.local

    @property
    def told(self) -> list[PunchPort]:
        """The punching ports whose mapped address our record tells; only these must be kept."""
        srflx = any(candidate.type is CandidateType.SRFLX for candidate in self.candidates)
        return self.ports if srflx else []

    def settle(self, nat: Nat, routes: Sequence[Route], *, on_lambda: bool) -> None:
        """Decides on the candidates, as late as possible: more is known of the NAT then."""
        self.nat, self.settled = nat, True
        host = self._host(on_lambda)
        candidates = [Candidate(CandidateType.SRFLX, p.mapped) for p in self.ports if p.mapped]
        if host is not None and Route.HOST in routes:
            if (nat.mapping, nat.filtering) == (Mapping.NONE, Filtering.INDEPENDENT):
                # Neither NAT nor firewall: punching could only do what a listener does better
                # (RFC 8445 section 5.1.3, redundant candidates).
                candidates.clear()
            self.listener = _listen(0)
            address = TransportAddress(host, int(self.listener.getsockname()[1]))
            candidates.append(Candidate(CandidateType.HOST, address))
        self.candidates = tuple(candidates)
        if self.ports:
            self.local = self.ports[0].local
        elif candidates:
            self.local = candidates[-1].address

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

    def _host(self, on_lambda: bool) -> str | None:
        """Our own address, where a peer could reach it.

        Lambda workers never reach each other directly, whatever their interfaces are called;
        where there is no NAT at all, the address that STUN saw is our own.
        """
        if self.nat.mapping is Mapping.NONE:
            return self.ports[0].local.host if self.ports else None
        if on_lambda:
            return None
        if self.ports and usable_host_address(self.ports[0].local.host):
            return self.ports[0].local.host
        return sockets.host_address(sockets.SOMEWHERE) or "127.0.0.1"


async def open_ports(stun: StunClient, routes: Sequence[Route], many: int) -> Ends:
    """Opens so many fresh punching ports and learns their mapping.

    Dead STUN servers are no error here: there are fewer candidates then.
    """
    ports: list[PunchPort] = []
    if Route.PUNCHED in routes:
        tasks = [asyncio.create_task(stun.open_port()) for _ in range(many)]
        try:
            for task in tasks:
                ports.append(await task)
        except BaseException:
            for port in ports:
                port.close()
            await _discard(tasks[len(ports) :])
            raise
    return Ends(ports)


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
