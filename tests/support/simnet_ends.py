"""Whole pairs in `simnet`: two hosts behind NATs, and what each one does to reach the other."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Sequence

from punchlib.core.simultaneous_open import CheckList, Close, Connect, Plan
from tests.support.netlab_kinds import Nat
from tests.support.simnet import Address, Clock, Line, Node, Router, SimHost, Socket, State
from tests.support.simnet_nat import SimNat

STUN: Address = ("198.18.0.10", 3478)
#: Seconds from an event in the kernel to the event loop's answer.
LOOP_DELAY = 0.0001


class World:
    """Two hosts, their NATs, and routers between them.

    Args:
        a, b: boxes on each side, from the host outwards.
        rtt, loss: of the wire in the middle.
        hops: routers between the outermost NATs.
        seed: of everything random.
    """

    def __init__(
        self,
        a: Sequence[Nat],
        b: Sequence[Nat],
        *,
        rtt: float = 0.0,
        loss: float = 0.0,
        hops: int = 1,
        seed: int = 0,
    ) -> None:
        self.rng = random.Random(seed)
        self.clock = Clock()
        self.hosts = (
            SimHost(self.clock, "10.1.0.10", self.rng),
            SimHost(self.clock, "10.2.0.10", self.rng),
        )
        self.boxes = (
            [SimNat(nat, f"198.18.1.{i}", -1, self.rng) for i, nat in enumerate(a, 2)],
            [SimNat(nat, f"198.18.2.{i}", +1, self.rng) for i, nat in enumerate(b, 2)],
        )
        nodes: list[Node] = [
            self.hosts[0],
            *self.boxes[0],
            *(Router() for _ in range(hops)),
            *reversed(self.boxes[1]),
            self.hosts[1],
        ]
        wire = 1 + len(a) + hops // 2
        line = Line(self.clock, nodes, wire, rtt=rtt, loss=loss, rng=self.rng)
        self.hosts[0].plug(lambda packet: line.send(packet, 0, +1))
        self.hosts[1].plug(lambda packet: line.send(packet, len(nodes) - 1, -1))

    def mapped(self, side: int, port: int) -> Address:
        """What a STUN server sees of a host's port."""
        address: Address = (self.hosts[side].address, port)
        for box in self.boxes[side]:
            address = box.map(address, STUN)
        return address

    def meet(self, a: End, b: End, *, skew: float = 0.0, seconds: float = 6.0) -> float | None:
        """Starts both ends, B `skew` later (earlier if negative).

        Returns:
            Seconds from the later start until both are connected to each other; None if they were
            not within `seconds`.
        """
        self.clock.after(max(0.0, -skew), a.start)
        self.clock.after(max(0.0, skew), b.start)
        begin = self.clock.now + abs(skew)
        self.clock.run(begin + seconds, lambda: connected(a, b))
        return self.clock.now - begin if connected(a, b) else None


def connected(a: End, b: End) -> bool:
    """Whether the two have an established connection in common."""
    return any(
        one.peer_isn == other.isn and other.peer_isn == one.isn
        for one in a.up
        for other in b.up
        if one.state is other.state is State.ESTABLISHED
    )


class End:
    """What one host does from one port. `up` holds its established sockets.

    Args:
        host: where.
        port: the punching port.
        remote: the peer's public address.
    """

    def __init__(self, host: SimHost, port: int, remote: Address) -> None:
        self.host = host
        self.port = port
        self.remote = remote
        self.up: list[Socket] = []

    def start(self) -> None:
        """Does nothing; what an end does is for its subclasses to say."""

    def dial(
        self,
        on_error: Callable[[int], None] = lambda code: None,
        *,
        ttl: int | None = None,
        min_ttl: int = 0,
        raise_ttl: bool = True,
    ) -> Socket:
        def changed(code: int | None) -> None:
            if code is None:
                self.up.append(socket)
            else:
                on_error(code)

        socket = self.host.connect(
            self.port, self.remote, changed, ttl=ttl, min_ttl=min_ttl, raise_ttl=raise_ttl
        )
        return socket


class Naive(End):
    """One connect, dead on a refusal: the old program."""

    def start(self) -> None:
        self.dial()


class Redial(End):
    """Connects again after every error.

    Args:
        pause: seconds in between, halved to one and a half times at random.
    """

    def __init__(self, host: SimHost, port: int, remote: Address, *, pause: float) -> None:
        super().__init__(host, port, remote)
        self._pause = pause
        self._rng = random.Random(port)

    def start(self) -> None:
        self.dial(lambda code: self.host.clock.after(self._wait(), self.start))

    def _wait(self) -> float:
        return self._pause * self._rng.uniform(0.5, 1.5) or LOOP_DELAY


class OpenAndListen(End):
    """A low-TTL SYN that opens our NAT, then a listener on its port."""

    def start(self) -> None:
        self.dial(ttl=3, min_ttl=10).close()
        self.host.listen(self.port, self.up.append)


class Hold(End):
    """A single low-TTL SYN, with or without what makes it work."""

    def __init__(
        self,
        host: SimHost,
        port: int,
        remote: Address,
        *,
        ttl: int = 3,
        min_ttl: int = 10,
        raise_ttl: bool = True,
    ) -> None:
        super().__init__(host, port, remote)
        self._options = (ttl, min_ttl, raise_ttl)

    def start(self) -> None:
        ttl, min_ttl, raise_ttl = self._options
        self.dial(ttl=ttl, min_ttl=min_ttl, raise_ttl=raise_ttl)


class Checks(End):
    """punchlib's check list, driven as `punchlib.net.attempt` drives it."""

    def __init__(self, host: SimHost, ports: Sequence[int], plan: Plan, seed: int) -> None:
        super().__init__(host, ports[0], ("", 0))
        self._ports = ports
        self._plan = plan
        self._seed = seed
        self._sockets: dict[int, Socket] = {}

    def start(self) -> None:
        clock = self.host.clock
        if self._plan.listening:
            for port in self._ports:
                self.host.listen(port, self.up.append)
        self._checks = CheckList(self._plan, clock.now, random.Random(self._seed))
        self._step()

    def _step(self) -> None:
        for command in self._checks.commands():
            if isinstance(command, Close):
                self._sockets.pop(command.id).close()
            else:
                self._connect(command)
        wait = max(0.0, self._checks.next_timer() - self.host.clock.now)
        self.host.clock.after(wait, self._on_timer)

    def _on_timer(self) -> None:
        now = self.host.clock.now
        if now >= self._checks.next_timer() and not self._checks.expired(now):
            self._checks.on_timer(now)
            self._step()

    def _connect(self, command: Connect) -> None:
        old = self._sockets.get(command.replaces) if command.replaces is not None else None
        if old is not None:
            if old.state in (State.SYN_RECV, State.ESTABLISHED):
                assert command.replaces is not None
                self._checks.on_arriving(command.replaces, self.host.clock.now)
                return
            old.close()
        assert command.pair.local is not None, "host candidates are not simulated"
        self.port, self.remote = self._ports[command.pair.local], command.pair.remote.address

        def changed(code: int | None) -> None:
            if code is None:
                self.up.append(socket)
                self._checks.on_connected(command.id)
            else:
                self._sockets.pop(command.id, None)
                # An event loop hears of it a moment later.
                self.host.clock.after(LOOP_DELAY, lambda: self._failed(command.id, code))

        try:
            socket = self.host.connect(
                self.port, self.remote, changed, ttl=command.ttl, min_ttl=command.min_ttl
            )
        except OSError as error:
            assert error.errno == errno.EADDRNOTAVAIL
            raise AssertionError("two sockets of ours on one 4-tuple") from error
        self._sockets[command.id] = socket

    def _failed(self, id: int, code: int) -> None:
        self._checks.on_failed(id, self.host.clock.now, code)
        self._step()
