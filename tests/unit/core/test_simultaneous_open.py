"""The check list as data: what it is told, what it says. Real NATs are in tests/nat."""

import errno
import random
from dataclasses import replace

import pytest

from punchlib.config import Route
from punchlib.core.candidates import Candidate, CandidatePair, CandidateType, TransportAddress
from punchlib.core.records import Filtering, Mapping, Nat, Record
from punchlib.core.simultaneous_open import (
    HOLD_MIN_TTL,
    MOST_DIALS,
    MOST_HOSTS,
    PAIR_STAGGER,
    RUNG_TIME,
    CheckList,
    Close,
    Connect,
    Plan,
    Technique,
    make_plan,
    plan_for_v1,
)

ROUTES = tuple(Route)


def srflx(port: int, host: str = "198.51.100.7") -> Candidate:
    return Candidate(CandidateType.SRFLX, TransportAddress(host, port))


UNKNOWN = Nat()


def record(nat: Nat = UNKNOWN, attempt: int = 1, *candidates: Candidate) -> Record:
    given = candidates or (srflx(1), srflx(2))
    address = given[0].address
    return Record(address, address, attempt=attempt, nat=nat, candidates=given)


def plan(holding: bool, technique: Technique = Technique.HOLD_AND_DIAL, n: int = 2) -> Plan:
    pairs = tuple(CandidatePair(i, srflx(i + 1)) for i in range(n))
    return Plan(technique, holding, 2.5, True, pairs, ())


def checks(p: Plan) -> CheckList:
    return CheckList(p, 0.0, random.Random(1))


def connects(c: CheckList) -> list[Connect]:
    return [x for x in c.commands() if isinstance(x, Connect)]


def test_the_holder_holds_on_all_ports_at_once() -> None:
    first = connects(checks(plan(holding=True)))
    assert [(c.pair.local, c.ttl, c.min_ttl) for c in first] == [
        (0, 3, HOLD_MIN_TTL),
        (1, 2, HOLD_MIN_TTL),
    ]


def test_the_holder_climbs_before_the_kernel_retransmits() -> None:
    c = checks(plan(holding=True, n=1))
    ids = [x.id for x in connects(c)]
    assert c.next_timer() == RUNG_TIME < 1.0
    ttls = [3]
    for n in range(1, 7):
        c.on_timer(n * RUNG_TIME)
        (again,) = connects(c)
        assert again.replaces == ids[-1], "made and bound before the old one is closed"
        ids.append(again.id)
        ttls.append(again.ttl or 0)
    assert ttls == [3, 2, 4, 5, 6, 3, 2]


def test_a_refused_rung_drops_itself_and_the_higher_ones() -> None:
    c = checks(plan(holding=True, n=1))
    (first,) = connects(c)
    c.on_failed(first.id, 0.1, errno.ECONNREFUSED)
    (second,) = connects(c)
    assert second.ttl == 2
    c.on_failed(second.id, 0.2, errno.EHOSTUNREACH)
    (third,) = connects(c)
    assert (third.ttl, third.min_ttl) == (None, 0), "no rung left: the race"
    c.on_failed(third.id, 0.3, errno.ECONNREFUSED)
    assert len(connects(c)) == 1, "which redials at once"


def test_a_socket_at_which_the_peers_syn_has_come_is_kept() -> None:
    c = checks(plan(holding=True, n=1))
    (first,) = connects(c)
    c.on_timer(RUNG_TIME)
    (second,) = connects(c)
    c.on_arriving(first.id, RUNG_TIME)
    c.on_connected(first.id)
    assert c.next_timer() == c.deadline
    c.close_all()
    assert second.id not in {x.id for x in c.commands()}


def test_the_dialler_adds_the_second_pair_later() -> None:
    c = checks(plan(holding=False))
    assert [x.pair.local for x in connects(c)] == [0]
    assert c.next_timer() == PAIR_STAGGER
    c.on_timer(PAIR_STAGGER)
    assert [x.pair.local for x in connects(c)] == [1]


def test_the_dialler_redials_after_an_error_and_waits_in_silence() -> None:
    c = checks(plan(holding=False, n=1))
    (first,) = connects(c)
    assert c.next_timer() == c.deadline, "silence is the kernel's to break"
    c.on_failed(first.id, 0.05, errno.ECONNREFUSED)
    assert connects(c) == []
    pause = c.next_timer() - 0.05
    assert 0 < pause <= 0.25
    c.on_timer(c.next_timer())
    assert len(connects(c)) == 1


def test_two_diallers_do_not_phase_lock() -> None:
    pauses = []
    for seed in (1, 2):
        c = CheckList(plan(holding=False, n=1), 0.0, random.Random(seed))
        c.on_failed(connects(c)[0].id, 0.0, errno.ECONNREFUSED)
        pauses.append(c.next_timer())
    assert pauses[0] != pauses[1]


def test_the_losers_are_closed() -> None:
    c = checks(plan(holding=True))
    first, second = connects(c)
    c.on_connected(first.id)
    c.close_all()
    assert {x.id for x in c.commands() if isinstance(x, Close)} == {first.id, second.id}


def test_somebody_else_at_the_other_end_is_a_failure_like_any_other() -> None:
    c = checks(plan(holding=False, n=1))
    (first,) = connects(c)
    c.on_connected(first.id)
    c.on_failed(first.id, 1.0, errno.ECONNABORTED)
    c.on_timer(c.next_timer())
    assert len(connects(c)) == 1


@pytest.mark.parametrize(("mine", "peer"), [(1, 1), (1, 4), (4, 1)])
def test_a_newcomer_is_met_with_the_first_technique(mine: int, peer: int) -> None:
    a, b = record(Nat(), mine), record(Nat(), peer)
    ours = make_plan(a, b, second=True, sending=True, routes=ROUTES)
    theirs = make_plan(b, a, second=False, sending=False, routes=ROUTES)
    assert ours.technique is theirs.technique is Technique.HOLD_AND_DIAL
    assert ours.holding and not theirs.holding


@pytest.mark.parametrize(
    ("attempt", "technique", "holds"),
    [
        (1, Technique.HOLD_AND_DIAL, True),
        (2, Technique.RACE, True),
        (3, Technique.SWAPPED, False),
        (4, Technique.NONE, True),
        (9, Technique.NONE, True),
    ],
)
def test_the_attempts(attempt: int, technique: Technique, holds: bool) -> None:
    r = record(Nat(), attempt)
    p = make_plan(r, r, second=True, sending=True, routes=ROUTES)
    assert p.technique is technique
    assert technique is Technique.NONE or p.holding is holds


FIXED, RANDOM = (
    Nat(Mapping.INDEPENDENT, Filtering.DEPENDENT),
    Nat(Mapping.DEPENDENT, Filtering.DEPENDENT),
)
OPEN, FIREWALL = Nat(Mapping.NONE, Filtering.INDEPENDENT), Nat(Mapping.NONE, Filtering.DEPENDENT)
CONE, RANDOM_CONE = (
    Nat(Mapping.INDEPENDENT, Filtering.INDEPENDENT),
    Nat(Mapping.DEPENDENT, Filtering.INDEPENDENT),
)
RANDOM_MAYBE = Nat(Mapping.DEPENDENT, Filtering.UNKNOWN)


@pytest.mark.parametrize(
    ("a", "b", "technique"),
    [
        (FIXED, FIXED, Technique.HOLD_AND_DIAL),
        (UNKNOWN, UNKNOWN, Technique.HOLD_AND_DIAL),
        (FIREWALL, CONE, Technique.HOLD_AND_DIAL),
        (FIXED, RANDOM, Technique.NONE),
        (FIREWALL, RANDOM, Technique.NONE),
        (RANDOM, RANDOM, Technique.NONE),
        (OPEN, RANDOM, Technique.LISTEN),
        (CONE, RANDOM, Technique.LISTEN),
        (RANDOM_CONE, RANDOM, Technique.LISTEN),
        (RANDOM_CONE, FIXED, Technique.LISTEN),
        (RANDOM_MAYBE, RANDOM, Technique.LISTEN),
    ],
)
def test_what_can_be_direct(a: Nat, b: Nat, technique: Technique) -> None:
    for x, y in ((a, b), (b, a)):
        p = make_plan(record(x), record(y), second=False, sending=True, routes=ROUTES)
        assert p.technique is technique, "no time is lost on what cannot work"


def test_the_end_that_lets_anybody_in_listens_and_the_other_dials() -> None:
    for second in (True, False):
        p = make_plan(record(CONE), record(RANDOM), second=second, sending=True, routes=ROUTES)
        q = make_plan(record(RANDOM), record(CONE), second=not second, sending=False, routes=ROUTES)
        assert p.listening and not p.pairs
        assert q.pairs and not q.listening and not q.holding


def test_what_is_only_possible_gets_a_moment() -> None:
    sure = make_plan(record(CONE), record(RANDOM), second=True, sending=True, routes=ROUTES)
    maybe = make_plan(record(UNKNOWN), record(RANDOM), second=True, sending=True, routes=ROUTES)
    assert maybe.seconds < 1.0 < sure.seconds
    again = make_plan(record(CONE, 2), record(RANDOM, 2), second=True, sending=True, routes=ROUTES)
    assert again.technique is Technique.NONE


def test_routes_restrict() -> None:
    host = Candidate(CandidateType.HOST, TransportAddress("10.0.0.1", 9))
    r = record(Nat(), 1, srflx(1), host)
    assert make_plan(r, r, second=True, sending=True, routes=(Route.HOST,)).pairs == ()
    assert make_plan(r, r, second=True, sending=True, routes=(Route.PUNCHED,)).hosts == ()
    only_s3 = make_plan(r, r, second=True, sending=True, routes=(Route.S3,))
    assert only_s3.technique is Technique.NONE


def test_an_old_peer_is_held_or_listened_for() -> None:
    old = Record(TransportAddress("10.0.0.1", 5), TransportAddress("198.51.100.9", 5), version=1)
    behind_nat = plan_for_v1(record(FIXED), old, sending=True, seconds=9)
    assert behind_nat.holding and not behind_nat.listening
    assert behind_nat.pairs[0].remote.address == old.external_addr
    in_the_open = plan_for_v1(record(OPEN), old, sending=True, seconds=9)
    assert in_the_open.listening and not in_the_open.pairs


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.8.9.1",
        "169.254.169.254",
        "169.254.170.2",
        "224.0.0.251",
        "0.0.0.0",
        "0.1.2.3",
        "240.0.0.1",
        "255.255.255.255",
    ],
)
def test_an_address_that_no_peer_has_is_not_dialled(host: str) -> None:
    """Who writes the table could else have us knock at the metadata service."""
    bad = TransportAddress(host, 80)
    peer = record(UNKNOWN, 1, Candidate(CandidateType.SRFLX, bad))
    peer = replace(
        peer, candidates=(*peer.candidates, Candidate(CandidateType.HOST, bad), srflx(9))
    )
    made = make_plan(record(), peer, second=True, sending=True, routes=ROUTES)
    assert [pair.remote for pair in made.pairs] == [srflx(9)]
    assert made.pairs[0].local == 1, "its port is the peer's second one, and so is ours"
    assert not made.hosts
    old = plan_for_v1(record(), Record(bad, bad, version=1), sending=True, seconds=1.0)
    assert not old.pairs


def test_loopback_is_dialled_by_who_is_there() -> None:
    here = (srflx(1, "127.0.0.1"), Candidate(CandidateType.HOST, TransportAddress("127.0.0.1", 3)))
    both = record(UNKNOWN, 1, *here)
    made = make_plan(both, both, second=True, sending=True, routes=ROUTES)
    assert made.pairs and made.hosts


def test_a_peer_has_few_addresses() -> None:
    many = [Candidate(CandidateType.HOST, TransportAddress("10.0.0.1", 1 + n)) for n in range(32)]
    made = make_plan(
        record(), record(UNKNOWN, 1, srflx(1), *many), second=True, sending=True, routes=ROUTES
    )
    assert len(made.hosts) == MOST_HOSTS


@pytest.mark.parametrize("technique", [Technique.HOLD_AND_DIAL, Technique.RACE])
def test_dials_are_bounded(technique: Technique) -> None:
    checks = CheckList(plan(holding=False, technique=technique, n=1), 0.0)
    now, dials = 0.0, 0
    while commands := [c for c in checks.commands() if isinstance(c, Connect)]:
        dials += 1
        checks.on_failed(commands[0].id, now, errno.ECONNREFUSED)
        now = max(now, checks.next_timer()) if technique is not Technique.RACE else now
        checks.on_timer(now)
        assert dials <= MOST_DIALS
    # The dialler pauses, so the attempt's time ends first.
    assert dials == MOST_DIALS if technique is Technique.RACE else 100 < dials < 600
