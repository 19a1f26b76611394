"""Opening one TCP connection through two NATs: which attempt when (docs/nat-traversal.md).

The problem: each end sits behind a NAT that lets in only what answers a packet of ours. Both ends
send a SYN, so that both NATs have an entry (TCP simultaneous open, RFC 9293 section 3.5; RFC 6544
calls the candidates simultaneous-open). The naive way, one `connect()` each, fails on every NAT
that *answers* an unsolicited SYN with a RST or an ICMP error: the first SYN of the faster end
kills its attempt, and the slower end's too. Redialling in a loop phase-locks. Listening as well
does not help: a listener's SYN-ACK has a new sequence number, which our own NAT takes for invalid
after our SYN.

Hold and dial: one end, the **holder**, sends SYNs with a TTL so low that they open its own NAT
and die before the other's, under IP_MINTTL so that the "time exceeded" does not kill its socket,
and raises the TTL again at once. The other, the **dialler**, dials. Its SYN meets the holder's
entry and socket, which answer with the holder's own sequence number: both NATs and the dialler
see an ordinary handshake.

This module is the check list of RFC 8445 for that: it has no sockets and no clock. It is told the
time and what happened, and says what to do:

    checks = CheckList(plan, now)
    run(checks.commands()); checks.on_connected(id) …; checks.on_timer(now) at checks.next_timer()

A check that is up is only a TCP connection: the caller verifies who is there, and reports a pair
that was not with `on_failed`.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from punchlib.config import Route
from punchlib.core.candidates import Candidate, CandidatePair, CandidateType, dialable
from punchlib.core.records import Filtering, Mapping, Record

#: Seconds; all measured (docs/nat-traversal.md).
REDIAL_PAUSE = 0.010  # between two dials after a refusal; anything up to 250 ms serves
RUNG_TIME = 0.9  # a hold ends before the kernel's 1 s retransmission would leave with TTL 64
PAIR_STAGGER = 0.05  # the dialler adds the second pair of ports after this, unless the first is up
HEAD_START = 0.1  # for host candidates that are likely to work, before punching begins
HOST_STAGGER = 0.05  # the receiver leaves the first word on host candidates to the sender
HOST_REDIAL = 0.1  # a host candidate that refuses is not listening yet, or is another machine

#: TTLs of the holder's SYNs, per port. 3 also passes two layers of NAT at the first try.
LADDERS = ((3, 2, 4, 5, 6), (2, 3, 4, 5, 6))
#: IP_MINTTL of the holder: its kernel drops the "time exceeded" that quotes a dying SYN (TTL ≤ 1).
HOLD_MIN_TTL = 10


class Technique(StrEnum):
    """How one attempt tries to connect directly."""

    HOLD_AND_DIAL = "hold-and-dial"
    RACE = "race"
    SWAPPED = "swapped"  # hold and dial with the roles exchanged
    LISTEN = "listen"  # an end that lets anybody in listens for one whose ports are unpredictable
    NONE = "none"  # nothing direct is left: S3


#: Technique and seconds of each attempt, from the first. Each has fresh ports and a new record.
ATTEMPTS = ((Technique.HOLD_AND_DIAL, 2.5), (Technique.RACE, 1.5), (Technique.SWAPPED, 1.5))

#: Bounds, for who writes the table must not make us scan or flood: host candidates, and connects of
#: one pair in one attempt (the race makes a thousand a second).
MOST_HOSTS = 4
MOST_DIALS = 10_000

#: Seconds for `LISTEN` where no end knows how its NAT filters: two round trips of 300 ms.
LISTEN_TIME = 0.8


@dataclass(frozen=True)
class Plan:
    """What one attempt does.

    Attributes:
        technique: how it punches.
        holding: True for the holder, False for the dialler. No meaning in a race.
        seconds: how long it may take.
        sending: this end sends the stream; it has the first word on host candidates.
        pairs: the punching pairs, one for each local port that has a counterpart.
        hosts: the peer's host candidates, to be dialled from any port.
        listening: accept on the punching ports too: the peer's ports cannot be predicted.
        hosts_likely: the host candidates have a real chance, and are the better route.
    """

    technique: Technique
    holding: bool
    seconds: float
    sending: bool
    pairs: tuple[CandidatePair, ...]
    hosts: tuple[CandidatePair, ...]
    listening: bool = False
    hosts_likely: bool = False


def make_plan(
    mine: Record, peer: Record, *, second: bool, sending: bool, routes: Sequence[Route]
) -> Plan:
    """Decides what both ends do, from facts that both have.

    Both compute it from the same two records, so both arrive at the same technique; who holds
    follows from the order of arrival at the rendezvous (exactly one end is second).

    Args:
        mine: our record, as registered.
        peer: the peer's.
        second: our registration found the peer's record there.
        sending: this end sends the stream.
        routes: the routes that this end may take.
    """
    hosts = [
        CandidatePair(None, c)
        for c in peer.of_type(CandidateType.HOST)[:MOST_HOSTS]
        if dialable(c.address, mine.candidates)
    ]
    remotes = peer.of_type(CandidateType.SRFLX)
    count = min(len(mine.of_type(CandidateType.SRFLX)), len(remotes))
    pairs = [
        CandidatePair(i, remotes[i])
        for i in range(count)
        if dialable(remotes[i].address, mine.candidates)
    ]
    # With nothing to dial ourselves, we may still be dialled where we listen.
    dialled = Route.HOST in routes and bool(mine.of_type(CandidateType.HOST))
    # A newcomer is met with the first technique, however many attempts the other has behind it.
    attempt = min(mine.attempt, peer.attempt)
    technique, seconds = (
        ATTEMPTS[attempt - 1] if attempt <= len(ATTEMPTS) else (Technique.NONE, 0.0)
    )
    listening = False
    if not (_predictable(mine) and _predictable(peer)):
        # Nobody can hold for ports that cannot be foreseen. An end that lets anybody in listens on
        # the port that STUN saw, and the other dials that; one that may do so gets a moment.
        known = Filtering.INDEPENDENT in (mine.nat.filtering, peer.nat.filtering)
        technique, seconds = (Technique.LISTEN, ATTEMPTS[0][1] if known else LISTEN_TIME)
        listening = mine.nat.filtering is not Filtering.DEPENDENT
        if peer.nat.filtering is Filtering.DEPENDENT:
            pairs = []
        if attempt > 1 or not (listening or pairs or hosts or dialled):
            technique = Technique.NONE
    if Route.PUNCHED not in routes:
        pairs, listening = [], False
    if Route.HOST not in routes:
        hosts = []
    if technique is Technique.NONE or not (pairs or hosts or listening or dialled):
        return Plan(Technique.NONE, second, 0.0, sending, (), ())
    holding = technique is not Technique.LISTEN and second != (technique is Technique.SWAPPED)
    return Plan(
        technique,
        holding,
        seconds,
        sending,
        tuple(pairs),
        tuple(hosts),
        listening,
        hosts_likely=bool(hosts) and _hosts_likely(mine, peer),
    )


def _hosts_likely(mine: Record, peer: Record) -> bool:
    """Whether the two are behind one NAT, or one of them behind none."""
    one_nat = mine.external_addr.host == peer.external_addr.host
    return one_nat or Mapping.NONE in (mine.nat.mapping, peer.nat.mapping)


def _predictable(record: Record) -> bool:
    """Whether the port that STUN saw is the one that the peer will see."""
    return record.nat.mapping is not Mapping.DEPENDENT


def plan_for_v1(mine: Record, peer: Record, *, sending: bool, seconds: float) -> Plan:
    """The plan towards an old peer, which only ever dials our `external_addr`, once.

    We hold; where there is no NAT on our side, a listener takes its call.
    """
    listening = mine.nat.mapping is Mapping.NONE
    remote = Candidate(CandidateType.SRFLX, peer.external_addr)
    known = (
        mine.of_type(CandidateType.SRFLX)
        and not listening
        and dialable(remote.address, mine.candidates)
    )
    pairs = (CandidatePair(0, remote),) if known else ()
    return Plan(Technique.HOLD_AND_DIAL, True, seconds, sending, pairs, (), listening)


@dataclass(frozen=True)
class Connect:
    """Open a non-blocking socket, bound to punching port `pair.local`, and connect it.

    Attributes:
        id: names the check from now on.
        pair: where from and where to.
        ttl: IP_TTL of the SYN, raised to 64 right after connect(); None for the normal one.
        min_ttl: IP_MINTTL while connecting, 0 for none.
        replaces: a check whose socket is to be closed between making this one and connecting it,
            unless its TCP state says that the peer's SYN has come (then: `on_arriving`).
    """

    id: int
    pair: CandidatePair
    ttl: int | None = None
    min_ttl: int = 0
    replaces: int | None = None


@dataclass(frozen=True)
class Close:
    """Close the socket of check `id`."""

    id: int


Command = Connect | Close


class CheckList:
    """The checks of one attempt."""

    def __init__(self, plan: Plan, now: float, rng: random.Random | None = None) -> None:
        self.plan = plan
        self.deadline = now + plan.seconds
        self._rng = rng or random.Random()
        self._commands: list[Command] = []
        self._last_id = 0
        self._by_id: dict[int, _Check] = {}
        self._checks: list[_Check] = []
        for pair in plan.hosts:
            self._checks.append(_Dial(self, pair, now + (0 if plan.sending else HOST_STAGGER)))
        for n, pair in enumerate(plan.pairs):
            if plan.technique is Technique.RACE:
                # One pair: a second one would only widen the gap between two dials of the first.
                if n == 0:
                    self._checks.append(_Race(self, pair, now))
            elif plan.holding:
                self._checks.append(_Hold(self, pair, now, LADDERS[n % len(LADDERS)]))
            else:
                head_start = HEAD_START if plan.hosts_likely else 0.0
                self._checks.append(_Dial(self, pair, now + head_start + n * PAIR_STAGGER))
        self.on_timer(now)

    def commands(self) -> list[Command]:
        """What to do now, in this order. Each command is handed out once."""
        out, self._commands = self._commands, []
        return out

    def next_timer(self) -> float:
        """When `on_timer` wants to be called at the latest."""
        return min([self.deadline, *(c.timer for c in self._checks if c.timer is not None)])

    def expired(self, now: float) -> bool:
        """Whether the attempt is over, unless a connection is just being verified."""
        return now >= self.deadline

    def on_timer(self, now: float) -> None:
        for check in list(self._checks):
            if check.timer is not None and now >= check.timer:
                check.timer = None
                check.on_timer(now)

    def on_connected(self, id: int) -> None:
        """The check's socket is connected: it is left alone until `on_failed` or the end."""
        self._by_id[id].stop()

    def on_arriving(self, id: int, now: float) -> None:
        """The socket was not replaced: the peer's SYN is there, the handshake under way."""
        check = self._by_id[id]
        if check.current is not None and check.current != id:
            del self._by_id[check.current]  # was never made
        check.current = id
        check.timer = now + RUNG_TIME

    def on_failed(self, id: int, now: float, error: int) -> None:
        """The check's socket failed with errno `error`, or was connected to somebody else.

        The caller has closed it.
        """
        check = self._by_id.pop(id, None)
        if check is not None and check.current in (id, None):
            check.current = None
            check.on_failed(now, error)

    def close_all(self) -> None:
        """Closes every socket that the check list still has open (the losers)."""
        for id in list(self._by_id):
            self._commands.append(Close(id))
        self._by_id.clear()
        self._checks.clear()

    def _become(self, old: _Check, new: _Check) -> None:
        self._checks[self._checks.index(old)] = new

    def _connect(self, check: _Check, command: Connect) -> None:
        check.dials += 1
        if check.dials > MOST_DIALS:
            return
        self._last_id += 1
        self._by_id[self._last_id] = check
        check.current = self._last_id
        self._commands.append(replace(command, id=self._last_id))

    def _jitter(self, seconds: float) -> float:
        # Equal pauses at both ends phase-lock and never meet.
        return seconds * self._rng.uniform(0.5, 1.5)


class _Check:
    """One pair's state: at most one socket, at most one timer."""

    def __init__(self, owner: CheckList, pair: CandidatePair, start: float) -> None:
        self.owner = owner
        self.pair = pair
        self.current: int | None = None
        self.dials = 0
        self.timer: float | None = start

    def stop(self) -> None:
        self.timer = None

    def on_timer(self, now: float) -> None:
        raise NotImplementedError

    def on_failed(self, now: float, error: int) -> None:
        raise NotImplementedError


class _Dial(_Check):
    """The dialler: connect; on an error redial after a pause; on silence leave it to the kernel."""

    def on_timer(self, now: float) -> None:
        self.owner._connect(self, Connect(0, self.pair))

    def on_failed(self, now: float, error: int) -> None:
        host = self.pair.route is Route.HOST and self.pair.local is None
        self.timer = now + self.owner._jitter(HOST_REDIAL if host else REDIAL_PAUSE)


class _Race(_Check):
    """Connect again the moment it fails: where both ends do, the SYNs cross in flight."""

    def on_timer(self, now: float) -> None:
        self.owner._connect(self, Connect(0, self.pair))

    def on_failed(self, now: float, error: int) -> None:
        self.on_timer(now)


class _Hold(_Check):
    """The holder: SYNs that die on the way, climbing a ladder of TTLs."""

    def __init__(
        self, owner: CheckList, pair: CandidatePair, start: float, ladder: Sequence[int]
    ) -> None:
        super().__init__(owner, pair, start)
        self._ladder = list(ladder)
        self._rung = 0

    def on_timer(self, now: float) -> None:
        if self.current is not None:
            self._rung += 1
        self._hold(now)

    def on_failed(self, now: float, error: int) -> None:
        ttl = self._ladder[self._rung % len(self._ladder)]
        if error in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ECONNRESET):
            # This TTL reached the peer's NAT, which answered.
            self._ladder = [t for t in self._ladder if t < ttl]
            self._rung = 0
        if not self._ladder:
            self.timer = None
            race = _Race(self.owner, self.pair, now)
            self.owner._become(self, race)
            race.timer = None
            race.on_timer(now)
            return
        self._hold(now)

    def _hold(self, now: float) -> None:
        ttl = self._ladder[self._rung % len(self._ladder)]
        self.owner._connect(
            self,
            Connect(0, self.pair, ttl=ttl, min_ttl=HOLD_MIN_TTL, replaces=self.current),
        )
        self.timer = now + RUNG_TIME
