"""A Linux NAT for `simnet`: connection tracking with sequence numbers, mapping, filtering.

The transitions are those of nf_conntrack_proto_tcp.c that a handshake can meet. What is invalid to
conntrack is not translated: from inside it is dropped, from outside it is a stranger's.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from enum import StrEnum

from tests.support.netlab_kinds import Filtering, Mapping, Nat, Ports, Unsolicited
from tests.support.netlab_rules import NAT_PORTS
from tests.support.simnet import Address, Kind, Packet, forward


class Track(StrEnum):
    SYN_SENT = "SYN_SENT"
    SYN_SENT2 = "SYN_SENT2"  # both have sent a SYN: simultaneous open
    SYN_RECV = "SYN_RECV"
    ESTABLISHED = "ESTABLISHED"
    CLOSE = "CLOSE"


#: (segment, from the originator): state before → state after. What is not here is invalid.
_TABLE: dict[tuple[Kind, bool], dict[Track, Track]] = {
    (Kind.SYN, True): {
        Track.SYN_SENT: Track.SYN_SENT,
        Track.SYN_SENT2: Track.SYN_SENT2,
        Track.SYN_RECV: Track.SYN_RECV,
        Track.ESTABLISHED: Track.ESTABLISHED,
        Track.CLOSE: Track.SYN_SENT,
    },
    (Kind.SYN, False): {Track.SYN_SENT: Track.SYN_SENT2, Track.SYN_SENT2: Track.SYN_SENT2},
    (Kind.SYN_ACK, True): {Track.SYN_SENT2: Track.SYN_RECV, Track.SYN_RECV: Track.SYN_RECV},
    (Kind.SYN_ACK, False): {
        Track.SYN_SENT: Track.SYN_RECV,
        Track.SYN_SENT2: Track.SYN_RECV,
        Track.SYN_RECV: Track.SYN_RECV,
        Track.ESTABLISHED: Track.ESTABLISHED,
    },
    (Kind.ACK, True): {Track.SYN_RECV: Track.ESTABLISHED, Track.ESTABLISHED: Track.ESTABLISHED},
    (Kind.ACK, False): {Track.SYN_RECV: Track.SYN_RECV, Track.ESTABLISHED: Track.ESTABLISHED},
    (Kind.RST, True): {Track.SYN_SENT: Track.CLOSE},
    (Kind.RST, False): {},
}


@dataclass
class Entry:
    """One tracked connection; `inner` is our host's address, `public` what it was mapped to."""

    inner: Address
    public: Address
    peer: Address
    from_inside: bool
    state: Track = Track.SYN_SENT
    replied: bool = False
    inside_isn: int | None = None
    outside_isn: int | None = None

    def takes(self, packet: Packet, outbound: bool) -> bool:
        """Follows one segment; False when conntrack calls it invalid."""
        original = outbound == self.from_inside
        after = _TABLE[packet.kind, original].get(self.state)
        if after is None or not self._in_window(packet, outbound, original):
            return False
        if after is Track.SYN_SENT and self.state is Track.CLOSE:
            self.replied, self.inside_isn, self.outside_isn = False, None, None
        if packet.kind in (Kind.SYN, Kind.SYN_ACK):
            if outbound:
                self.inside_isn = packet.seq
            else:
                self.outside_isn = packet.seq
        self.state = after
        self.replied |= not original
        return True

    def _in_window(self, packet: Packet, outbound: bool, original: bool) -> bool:
        own = self.inside_isn if outbound else self.outside_isn
        other = self.outside_isn if outbound else self.inside_isn
        if packet.kind is Kind.SYN and (self.state is Track.SYN_SENT2 or not original):
            # Both have sent a SYN: from now on a SYN must be a retransmission. The originator may
            # start anew only as long as nobody has answered.
            return own in (None, packet.seq)
        if packet.kind is Kind.SYN_ACK:
            return own in (None, packet.seq) and other is not None and packet.ack == other + 1
        return True


class SimNat:
    """A box on the line.

    Args:
        nat: how it behaves.
        address: its public address.
        inward: the direction in which its inside lies.
        rng: picks ports.
    """

    def __init__(self, nat: Nat, address: str, inward: int, rng: random.Random) -> None:
        self.nat = nat
        self.address = address
        self.entries: list[Entry] = []
        self._inward = inward
        self._rng = rng
        self._mappings: dict[object, int] = {}
        self._owners: dict[int, Address] = {}
        self._next = NAT_PORTS[0]

    def map(self, inner: Address, peer: Address) -> Address:
        """The public address that `inner` has towards `peer`."""
        nat = self.nat
        if nat.mapping is Mapping.NONE:
            self._owners[inner[1]] = inner
            return inner
        key: object = {
            Mapping.EIM: inner,
            Mapping.ADM: (inner, peer[0]),
            Mapping.APDM: (inner, peer),
        }[nat.mapping]
        if key not in self._mappings:
            self._mappings[key] = self._pick(inner[1])
        self._owners[self._mappings[key]] = inner
        return self.address, self._mappings[key]

    def _pick(self, wanted: int) -> int:
        if self.nat.ports is Ports.PRESERVED:
            return wanted
        if self.nat.ports is Ports.SEQUENTIAL:
            self._next += 1
            return self._next
        return self._rng.randint(*NAT_PORTS)

    def receive(self, packet: Packet, direction: int) -> list[tuple[Packet, int]]:
        if packet.quoted is not None:
            return self._icmp(packet, packet.quoted, direction)
        if direction == self._inward:
            return self._inbound(packet, direction)
        return self._outbound(packet, direction)

    def _outbound(self, packet: Packet, direction: int) -> list[tuple[Packet, int]]:
        entry = self._find(inner=packet.src, peer=packet.dst)
        if entry is None:
            if packet.kind is not Kind.SYN:
                return []
            if packet.ttl <= 1:
                return [forward(packet, direction)]  # dies before its entry is confirmed
            public = self.map(packet.src, packet.dst)
            entry = Entry(packet.src, public, packet.dst, True, inside_isn=packet.seq)
            self.entries.append(entry)
        elif not self._follow(entry, packet, outbound=True):
            return []
        out, way = forward(packet, direction)
        return [(replace(out, src=entry.public) if way == direction else out, way)]

    def _inbound(self, packet: Packet, direction: int) -> list[tuple[Packet, int]]:
        entry = self._find(public=packet.dst, peer=packet.src)
        if entry is None:
            inner = self._owner(packet.dst)
            if self.nat.filtering is not Filtering.EIF or inner is None:
                return self._stranger(packet, direction)
            if packet.ttl <= 1:
                return [forward(packet, direction)]
            if packet.kind is not Kind.SYN:
                return []
            entry = Entry(inner, packet.dst, packet.src, False, outside_isn=packet.seq)
            self.entries.append(entry)
        elif not self._follow(entry, packet, outbound=False):
            return self._stranger(packet, direction)
        out, way = forward(packet, direction)
        return [(replace(out, dst=entry.inner) if way == direction else out, way)]

    def _follow(self, entry: Entry, packet: Packet, *, outbound: bool) -> bool:
        """Lets an entry see a segment; False when the segment is invalid."""
        if packet.kind is Kind.RST and outbound != entry.from_inside and not entry.replied:
            # Nobody has answered yet: the RST is passed on and the entry forgotten at once.
            self.entries.remove(entry)
            if self.nat.mapping is Mapping.APDM:
                # A redial is a new connection, and gets a new port.
                self._mappings.pop((entry.inner, entry.peer), None)
            return True
        return entry.takes(packet, outbound)

    def _stranger(self, packet: Packet, direction: int) -> list[tuple[Packet, int]]:
        if packet.ttl <= 1 and (self.nat.static or not self.nat.translates):
            return [forward(packet, direction)]  # the address is not the box's own: it would route
        if packet.kind is Kind.RST or self.nat.unsolicited is Unsolicited.DROP:
            return []
        if self.nat.unsolicited is Unsolicited.RST:
            return [(packet.reset(), -direction)]
        return [(packet.error(Kind.REFUSED), -direction)]

    def _icmp(self, packet: Packet, quoted: Packet, direction: int) -> list[tuple[Packet, int]]:
        """An error follows its connection back to the sender, its quotation translated."""
        if direction != self._inward:
            entry = self._find(inner=quoted.dst, peer=quoted.src)
            if entry is None:
                return []
            return [(replace(packet, quoted=replace(quoted, dst=entry.public)), direction)]
        entry = self._find(public=quoted.src, peer=quoted.dst)
        if entry is None:
            return []
        return [(replace(packet, quoted=replace(quoted, src=entry.inner)), direction)]

    def _owner(self, public: Address) -> Address | None:
        """Who inside has the mapping, if there is one."""
        if not self.nat.translates:
            return public
        return self._owners.get(public[1])

    def _find(
        self, *, peer: Address, inner: Address | None = None, public: Address | None = None
    ) -> Entry | None:
        return next(
            (
                e
                for e in self.entries
                if e.peer == peer and (e.inner == inner or e.public == public)
            ),
            None,
        )
