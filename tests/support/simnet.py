"""Two hosts, the NATs between them and a clock that only the test moves.

A discrete-event model of what decides whether a TCP connection through two NATs opens: the SYNs of
two kernels (retransmissions, simultaneous open, IP_TTL, IP_MINTTL, what an ICMP error does), hops
that let a packet die, and the NATs of `simnet_nat`. No payload and no FIN: a connection is open
when both ends are ESTABLISHED. Everything lies on one line:

    host A – NATs of A – routers – NATs of B – host B

so a packet needs no routing, only a direction. Times in seconds.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

Address = tuple[str, int]

#: When Linux 6.x sends a SYN again (tcp_syn_linear_timeouts = 4, then doubling).
RETRANSMISSIONS = (1.03, 2.05, 3.07, 4.09, 5.12, 7.13, 11.3, 19.5)
NORMAL_TTL = 64
HOP_DELAY = 0.00002


class Kind(StrEnum):
    SYN = "syn"
    SYN_ACK = "syn-ack"
    ACK = "ack"
    RST = "rst"
    TIME_EXCEEDED = "time-exceeded"  # ICMP 11
    REFUSED = "refused"  # ICMP 3, port unreachable


@dataclass(frozen=True)
class Packet:
    """A TCP segment, or an ICMP error that quotes one.

    Attributes:
        quoted: the segment that an ICMP error is about, as it looked where it died.
    """

    kind: Kind
    src: Address
    dst: Address
    seq: int = 0
    ack: int = 0
    ttl: int = NORMAL_TTL
    quoted: Packet | None = None

    def reset(self) -> Packet:
        """The RST that a kernel or a NAT answers a SYN with (RFC 9293, 3.5.2)."""
        return Packet(Kind.RST, self.dst, self.src, seq=0, ack=self.seq + 1)

    def error(self, kind: Kind) -> Packet:
        """The ICMP error that this segment draws."""
        return Packet(kind, self.dst, self.src, quoted=self)


class Clock:
    """Simulated time and what is to happen in it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, delay: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay, next(self._order), action))

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        """Lets events happen until a time is reached or something is done."""
        while self._events and self._events[0][0] <= until and not done():
            self.now, _, action = heapq.heappop(self._events)
            action()
        if not done():
            self.now = max(self.now, until)


class Node(Protocol):
    """Something on the line: a packet comes in, moving up (+1, towards B) or down (-1)."""

    def receive(self, packet: Packet, direction: int) -> list[tuple[Packet, int]]:
        """What goes out in consequence, each with its direction."""
        ...


class Router:
    """A hop."""

    def receive(self, packet: Packet, direction: int) -> list[tuple[Packet, int]]:
        return [forward(packet, direction)]


def forward(packet: Packet, direction: int) -> tuple[Packet, int]:
    """The packet with its TTL decremented, or the error that its death draws."""
    if packet.ttl > 1:
        return replace(packet, ttl=packet.ttl - 1), direction
    return packet.error(Kind.TIME_EXCEEDED), -direction


class Line:
    """The whole path, and the wire in its middle with delay and loss.

    Args:
        clock: the time.
        nodes: from host A to host B.
        wire: index of the node before which the wire is.
        rtt: round trip; half of it is spent on the wire in each direction.
        loss: share of packets lost on it.
        rng: decides which.
    """

    def __init__(
        self,
        clock: Clock,
        nodes: Sequence[Node],
        wire: int,
        *,
        rtt: float,
        loss: float,
        rng: random.Random,
    ) -> None:
        self._clock = clock
        self._nodes = nodes
        self._wire = wire
        self._delay = rtt / 2
        self._loss = loss
        self._rng = rng

    def send(self, packet: Packet, at: int, direction: int) -> None:
        """From node `at` to its neighbour."""
        to = at + direction
        delay = HOP_DELAY
        if max(at, to) == self._wire:
            if self._rng.random() < self._loss:
                return
            delay += self._delay
        self._clock.after(delay, lambda: self._arrive(packet, to, direction))

    def _arrive(self, packet: Packet, at: int, direction: int) -> None:
        for out, way in self._nodes[at].receive(packet, direction):
            # An error that dies draws no further error (RFC 1122, 3.2.2).
            if out.quoted is None or out.quoted.quoted is None:
                self.send(out, at, way)


class State(StrEnum):
    SYN_SENT = "SYN_SENT"
    SYN_RECV = "SYN_RECV"
    ESTABLISHED = "ESTABLISHED"
    CLOSED = "CLOSED"


class Socket:
    """One end of one 4-tuple.

    Attributes:
        on_change: called when it is established (None) or has failed (an errno).
    """

    def __init__(
        self,
        host: SimHost,
        local: Address,
        remote: Address,
        isn: int,
        on_change: Callable[[int | None], None],
    ) -> None:
        self.host = host
        self.local = local
        self.remote = remote
        self.isn = isn
        self.peer_isn = 0
        self.ttl = NORMAL_TTL
        self.min_ttl = 0
        self.state = State.SYN_SENT
        self.on_change = on_change

    def transmit(self) -> None:
        kind = Kind.SYN if self.state is State.SYN_SENT else Kind.SYN_ACK
        ack = self.peer_isn + 1 if kind is Kind.SYN_ACK else 0
        self.host.emit(Packet(kind, self.local, self.remote, self.isn, ack, self.ttl))

    def start(self) -> None:
        """Sends now, and again as the kernel would until the handshake is over."""
        self.transmit()
        for delay in RETRANSMISSIONS:
            self.host.clock.after(delay, self._again)

    def _again(self) -> None:
        if self.state in (State.SYN_SENT, State.SYN_RECV):
            self.transmit()

    def close(self) -> None:
        """Silent in SYN_SENT, as in Linux."""
        self.state = State.CLOSED
        self.host.forget(self)

    def _fail(self, code: int) -> None:
        self.close()
        self.on_change(code)

    def _establish(self) -> None:
        self.state = State.ESTABLISHED
        self.on_change(None)

    def receive(self, packet: Packet) -> None:
        if packet.quoted is not None:
            self._icmp(packet.kind, packet.quoted)
            return
        if packet.ttl < self.min_ttl:
            return  # ip(7): IP_MINTTL
        {
            Kind.SYN: self._syn,
            Kind.SYN_ACK: self._syn_ack,
            Kind.ACK: self._ack,
            Kind.RST: self._rst,
        }[packet.kind](packet)

    def _icmp(self, kind: Kind, quoted: Packet) -> None:
        # The kernel looks at the TTL of the quoted packet: a SYN that died of its low TTL has
        # none left, and IP_MINTTL makes the error invisible.
        if self.state is not State.SYN_SENT or quoted.ttl < self.min_ttl:
            return
        if quoted.seq == self.isn:
            self._fail(errno.EHOSTUNREACH if kind is Kind.TIME_EXCEEDED else errno.ECONNREFUSED)

    def _syn(self, packet: Packet) -> None:
        # Simultaneous open (RFC 9293, 3.5): the SYN-ACK carries the same ISN as our SYN did.
        if self.state is State.SYN_SENT:
            self.state = State.SYN_RECV
            self.peer_isn = packet.seq
        if self.state is State.SYN_RECV and packet.seq == self.peer_isn:
            self.transmit()

    def _syn_ack(self, packet: Packet) -> None:
        if packet.ack != self.isn + 1:
            if self.state is State.SYN_SENT:
                self.host.emit(Packet(Kind.RST, self.local, self.remote, seq=packet.ack))
            return
        self.peer_isn = packet.seq
        self.host.emit(
            Packet(Kind.ACK, self.local, self.remote, self.isn + 1, packet.seq + 1, self.ttl)
        )
        if self.state in (State.SYN_SENT, State.SYN_RECV):
            self._establish()

    def _ack(self, packet: Packet) -> None:
        if self.state is State.SYN_RECV and packet.ack == self.isn + 1:
            self._establish()

    def _rst(self, packet: Packet) -> None:
        if self.state is State.SYN_SENT and packet.ack == self.isn + 1:
            self._fail(errno.ECONNREFUSED)
        elif self.state is not State.SYN_SENT and packet.seq == self.peer_isn + 1:
            self._fail(errno.ECONNRESET)


class SimHost:
    """A kernel with TCP sockets; it is at one end of the line."""

    def __init__(self, clock: Clock, address: str, rng: random.Random) -> None:
        self.clock = clock
        self.address = address
        self.sockets: dict[tuple[int, Address], Socket] = {}
        self._rng = rng
        self._listeners: dict[int, Callable[[Socket], None]] = {}
        self._emit: Callable[[Packet], None] = lambda packet: None

    def plug(self, emit: Callable[[Packet], None]) -> None:
        self._emit = emit

    def emit(self, packet: Packet) -> None:
        self._emit(packet)

    def forget(self, socket: Socket) -> None:
        key = (socket.local[1], socket.remote)
        if self.sockets.get(key) is socket:
            del self.sockets[key]

    def _isn(self) -> int:
        # RFC 6528: grows by one every 64 ns, so that a later one is always higher.
        return int(self.clock.now * 15_625_000) + self._rng.randrange(1000) + 1

    def connect(
        self,
        port: int,
        remote: Address,
        on_change: Callable[[int | None], None],
        *,
        ttl: int | None = None,
        min_ttl: int = 0,
        raise_ttl: bool = True,
    ) -> Socket:
        """A SYN from `port`, with `ttl` if given; everything after it has the normal TTL.

        Raises:
            OSError: EADDRNOTAVAIL, another socket has this 4-tuple.
        """
        if (port, remote) in self.sockets:
            raise OSError(errno.EADDRNOTAVAIL, "another socket has this 4-tuple")
        socket = Socket(self, (self.address, port), remote, self._isn(), on_change)
        self.sockets[(port, remote)] = socket
        socket.ttl = ttl or NORMAL_TTL
        socket.min_ttl = min_ttl
        socket.start()
        if raise_ttl:
            socket.ttl = NORMAL_TTL
        return socket

    def listen(self, port: int, on_accept: Callable[[Socket], None]) -> None:
        self._listeners[port] = on_accept

    def receive(self, packet: Packet, direction: int) -> list[tuple[Packet, int]]:
        about = packet.quoted or packet
        local, remote = (packet.dst, packet.src) if not packet.quoted else (about.src, about.dst)
        socket = self.sockets.get((local[1], remote))
        if socket is not None:
            socket.receive(packet)
        elif packet.kind is Kind.SYN and local[1] in self._listeners:
            self._accept(packet, self._listeners[local[1]])
        elif packet.kind in (Kind.SYN, Kind.SYN_ACK):
            self.emit(packet.reset())
        return []

    def _accept(self, packet: Packet, on_accept: Callable[[Socket], None]) -> None:
        """A listener's child: its SYN-ACK has an ISN of its own."""
        child = Socket(self, packet.dst, packet.src, self._isn(), lambda code: None)
        child.on_change = lambda code: on_accept(child) if code is None else None
        child.state = State.SYN_RECV
        child.peer_isn = packet.seq
        self.sockets[(packet.dst[1], packet.src)] = child
        child.start()
