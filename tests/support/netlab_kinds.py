"""What can lie between a host and the Internet, as data.

The words are those of RFC 4787 (UDP) and RFC 5382 (TCP): a *mapping* is the public port that a NAT
gives to a private address and port; *filtering* says whose packets may come back through it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Mapping(StrEnum):
    """Which destinations share one public port (RFC 4787 section 4.1)."""

    NONE = "none"  # no translation: a router or a firewall
    EIM = "endpoint-independent"
    ADM = "address-dependent"
    APDM = "address-and-port-dependent"


class Ports(StrEnum):
    """How a public port is chosen."""

    PRESERVED = "preserved"  # the private port, where it is free
    RANDOM = "random"
    SEQUENTIAL = "sequential"  # the next one, for every new connection


class Filtering(StrEnum):
    """Whose packets a mapping lets in (RFC 4787 section 5)."""

    EIF = "endpoint-independent"
    APDF = "address-and-port-dependent"


class Unsolicited(StrEnum):
    """What a stranger's SYN gets for an answer (RFC 5382 REQ-4 asks for silence)."""

    DROP = "drop"
    RST = "rst"
    ICMP = "icmp"


@dataclass(frozen=True)
class Nat:
    """One box between a host and the core.

    Attributes:
        mapping: which destinations share a public port.
        filtering: whose packets come in.
        unsolicited: the answer to all others.
        ports: how a public port is chosen.
        static: a 1:1 address (EC2): the whole public address belongs to one host.
        hairpin: whether a host inside reaches another one through its public address
            (RFC 5382 REQ-8).
        isolated: whether hosts inside cannot reach each other directly (Lambda workers).
        address_each: a public address for every host inside instead of one for all.
        least_ttl: SYNs from inside with a lower TTL are eaten, unseen by the NAT.
        swallows: a connection that has carried so many bytes carries nothing more, and nobody is
            told; 0: none does.
        forgets: seconds until the mapping of an idle TCP connection goes (on AWS 350); whoever
            goes on gets a RST. 0: the kernel's five days.
    """

    mapping: Mapping = Mapping.EIM
    filtering: Filtering = Filtering.APDF
    unsolicited: Unsolicited = Unsolicited.DROP
    ports: Ports = Ports.PRESERVED
    static: bool = False
    hairpin: bool = True
    isolated: bool = False
    address_each: bool = False
    least_ttl: int = 0
    swallows: int = 0
    forgets: int = 0

    @property
    def translates(self) -> bool:
        return self.mapping is not Mapping.NONE


@dataclass(frozen=True)
class Kind:
    """What lies between a host and the core: the boxes, from the host outwards.

    Attributes:
        name: as rows and columns of the grid call it.
        note: what it is like in real life.
        layers: the boxes; the first is next to the host.
        lan: the private network, when it matters that two sites have the same.
        old_peer: an old (v1) program runs here, not ours: "lambda" or "ec2", which says what it
            writes into its record (docs/wire.md).
    """

    name: str
    note: str
    layers: tuple[Nat, ...]
    lan: str | None = None
    old_peer: str | None = None

    @property
    def predictable(self) -> bool:
        """Whether the peer can know in advance from which port our packets will come."""
        return all(n.mapping in (Mapping.NONE, Mapping.EIM) for n in self.layers)

    @property
    def open(self) -> bool:
        """Whether anybody may come in through a mapping that exists."""
        return all(n.filtering is Filtering.EIF for n in self.layers)


_EIM = Nat()
_APDM = Nat(mapping=Mapping.APDM, ports=Ports.RANDOM)
_FIREWALL = Nat(mapping=Mapping.NONE)
_EIF = Filtering.EIF
_RST, _ICMP = Unsolicited.RST, Unsolicited.ICMP

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("open", "a public address, no firewall", (replace(_FIREWALL, filtering=_EIF),)),
        Kind("fw-drop", "a public address behind a stateful firewall", (_FIREWALL,)),
        Kind("fw-rst", "the same, strangers get a RST", (replace(_FIREWALL, unsolicited=_RST),)),
        Kind("ec2", "1:1 address, security group without inbound rules", (Nat(static=True),)),
        Kind(
            "ec2-open",
            "1:1 address, security group that lets everything in",
            (Nat(static=True, filtering=_EIF),),
        ),
        Kind("lambda", "port kept, strangers dropped: as measured on Lambda", (_EIM,)),
        Kind("eim-rst", "port kept, strangers get a RST", (replace(_EIM, unsolicited=_RST),)),
        Kind("eim-icmp", "port kept, strangers get ICMP", (replace(_EIM, unsolicited=_ICMP),)),
        Kind(
            "eim-random",
            "another port, the same to all destinations",
            (replace(_EIM, ports=Ports.RANDOM),),
        ),
        Kind(
            "eim-random-rst",
            "the same, strangers get a RST",
            (replace(_EIM, ports=Ports.RANDOM, unsolicited=_RST),),
        ),
        Kind("eim-eif", "a full-cone home router, port kept", (replace(_EIM, filtering=_EIF),)),
        Kind(
            "eim-eif-random",
            "full cone, another port",
            (replace(_EIM, filtering=_EIF, ports=Ports.RANDOM),),
        ),
        Kind(
            "adm",
            "another random port for every destination address",
            (Nat(mapping=Mapping.ADM, ports=Ports.RANDOM),),
        ),
        Kind(
            "adm-eif",
            "the same, but lets everybody in",
            (Nat(mapping=Mapping.ADM, ports=Ports.RANDOM, filtering=_EIF),),
        ),
        Kind("apdm-random", "a random port for every connection", (_APDM,)),
        Kind("apdm-random-rst", "the same, RST", (replace(_APDM, unsolicited=_RST),)),
        Kind("apdm-eif", "random ports, lets everybody in", (replace(_APDM, filtering=_EIF),)),
        Kind(
            "apdm-seq",
            "the next port for every connection",
            (replace(_APDM, ports=Ports.SEQUENTIAL),),
        ),
        Kind(
            "aws-nat-gateway",
            "random ports, address and port dependent in both respects, silent",
            (_APDM,),
        ),
        Kind("double", "a home router behind a carrier's NAT, both port-preserving", (_EIM, _EIM)),
        Kind(
            "double-rst",
            "a home router that answers, behind a carrier's NAT that answers",
            (replace(_EIM, unsolicited=_RST), replace(_EIM, unsolicited=_RST)),
        ),
        Kind("double-apdm", "a home router behind a carrier's random-port NAT", (_EIM, _APDM)),
        Kind("home", "a home router with the LAN that everybody has", (_EIM,), lan="192.168.1"),
        Kind("old-lambda", "an old program on Lambda", (_EIM,), old_peer="lambda"),
        Kind("old-ec2", "an old program on EC2", (Nat(static=True),), old_peer="ec2"),
    )
}

#: Both hosts behind one NAT. The name is that of the cell.
SHARED: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("same-lan", "two hosts of one LAN", (_EIM,)),
        Kind(
            "same-nat-hairpin",
            "two networks that cannot reach each other but through their NAT's public address",
            (replace(_EIM, isolated=True),),
        ),
        Kind(
            "same-nat-no-hairpin",
            "the same, and the NAT does not return its own traffic",
            (replace(_EIM, isolated=True, hairpin=False),),
        ),
        Kind(
            "lambda-workers",
            "two Lambda workers: isolated, a public address each",
            (replace(_EIM, isolated=True, address_each=True),),
        ),
        Kind(
            "same-aws-nat-gateway",
            "two workers of a VPC behind one NAT Gateway",
            (replace(_APDM, isolated=True),),
        ),
    )
}

#: Boxes that do harm beyond NAT. What a connection must do there: tests/nat/test_middleboxes.py.
MIDDLEBOXES: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("eats-low-ttl", "SYNs of a low TTL do not reach the NAT", (Nat(least_ttl=16),)),
        Kind("swallows", "a connection ends in silence after 32 kB", (Nat(swallows=32_768),)),
        Kind("forgets", "an idle connection is reset after 8 s", (Nat(forgets=8),)),
    )
}
