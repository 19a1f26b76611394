"""Transport addresses, candidates and candidate pairs (RFC 8445 sections 5.1 and 6.1.2)."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from punchlib.config import Route

_PRIVATE = [
    ipaddress.IPv4Network(n)
    for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
]


class TransportAddress(NamedTuple):
    """An IPv4 address and a TCP port (RFC 8445: transport address)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> TransportAddress:
        """Reads "A.B.C.D:PORT".

        Raises:
            ValueError: not an IPv4 address with a port from 1 to 65535.
        """
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"{text!r} is not ADDRESS:PORT")
        return cls(str(ipaddress.IPv4Address(host)), int(port))


class CandidateType(StrEnum):
    """Where a candidate's address comes from (RFC 8445 section 5.1.1)."""

    HOST = "host"  # an address of one of our own interfaces; we listen there
    SRFLX = "srflx"  # server-reflexive: what a STUN server saw of the punching port


class Candidate(NamedTuple):
    """One address at which a peer may be reached."""

    type: CandidateType
    address: TransportAddress


@dataclass(frozen=True)
class CandidatePair:
    """One attempt's two ends.

    Attributes:
        local: index of the local punching port, or None where any local port will do.
        remote: the peer's candidate.
    """

    local: int | None
    remote: Candidate

    @property
    def route(self) -> Route:
        return Route.HOST if self.remote.type is CandidateType.HOST else Route.PUNCHED


def dialable(address: TransportAddress, own: Collection[Candidate]) -> bool:
    """Whether an address that a peer names is one that a peer could have.

    Who writes the rendezvous table could else have us knock at services that trust this machine or
    its network: loopback, the metadata service on a link-local address. Loopback is dialled by who
    offers loopback addresses itself: both are on one machine then.

    Args:
        address: the peer's.
        own: our candidates.
    """
    ip = ipaddress.IPv4Address(address.host)
    if ip.is_loopback:
        return any(ipaddress.IPv4Address(c.address.host).is_loopback for c in own)
    return not _nowhere(ip)


def believable(mapped: TransportAddress, server: TransportAddress) -> bool:
    """Whether a STUN server can have seen us at the address that it says.

    It sees us in its own network or coming from a NAT's outside: one that has a public address
    never sees a private one (RFC 1918, RFC 6598), and none but one on this machine sees loopback.
    A lie would stand in our record, and a peer would knock there.

    Args:
        mapped: where we are, as it says.
        server: where it was asked.
    """
    ours, its = ipaddress.IPv4Address(mapped.host), ipaddress.IPv4Address(server.host)
    if ours.is_loopback:
        return its.is_loopback
    inside = any(ours in network for network in _PRIVATE)
    asked_inside = its.is_loopback or any(its in network for network in _PRIVATE)
    return not _nowhere(ours) and (asked_inside or not inside)


def _nowhere(ip: ipaddress.IPv4Address) -> bool:
    return ip.is_link_local or ip.is_multicast or ip.is_reserved or ip.packed[0] == 0


def usable_host_address(host: str) -> bool:
    """Whether a peer could ever reach this address of ours.

    Link-local addresses are not (a Lambda's own is 169.254.x.x, the same on every worker).
    """
    address = ipaddress.IPv4Address(host)
    return not (address.is_link_local or address.is_unspecified or address.is_multicast)
