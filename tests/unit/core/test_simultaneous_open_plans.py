"""What both ends plan from their records, and what comes of it behind simulated NATs."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from punchlib.config import Route
from punchlib.core import records
from punchlib.core.candidates import Candidate, CandidatePair, CandidateType, TransportAddress
from punchlib.core.records import Nat as NatFacts
from punchlib.core.records import Record
from punchlib.core.simultaneous_open import (
    HEAD_START,
    CheckList,
    Connect,
    Plan,
    Technique,
    make_plan,
)
from tests.support.netlab_kinds import Filtering, Mapping, Nat, Ports
from tests.support.simnet_ends import Checks, World
from tests.unit.core.test_simultaneous_open_sim import DROP, POLL, RST


def test_punching_waits_a_moment_for_a_host_candidate_that_is_likely_to_work() -> None:
    def first_dial(hosts_likely: bool) -> float:
        host = CandidatePair(None, Candidate(CandidateType.HOST, TransportAddress("10.1.0.9", 9)))
        pair = CandidatePair(0, Candidate(CandidateType.SRFLX, TransportAddress("198.18.1.2", 9)))
        plan = Plan(
            Technique.HOLD_AND_DIAL, False, 2.5, True, (pair,), (host,), hosts_likely=hosts_likely
        )
        checks = CheckList(plan, 0.0)
        now = 0.0
        while pair not in [c.pair for c in checks.commands() if isinstance(c, Connect)]:
            now = checks.next_timer()
            checks.on_timer(now)
        return now

    assert first_dial(hosts_likely=False) == 0.0
    assert first_dial(hosts_likely=True) == HEAD_START


def test_host_candidates_are_likely_behind_one_nat_or_none() -> None:
    def record(public: str, mapping: str) -> Record:
        address = TransportAddress(public, 21000)
        own = Candidate(CandidateType.HOST, TransportAddress("10.1.0.9", 9))
        candidates = (Candidate(CandidateType.SRFLX, address), own)
        facts = NatFacts(records.Mapping(mapping), records.Filtering.DEPENDENT)
        return Record(address, address, candidates=candidates, nat=facts)

    def likely(a: Record, b: Record) -> bool:
        return make_plan(a, b, second=False, sending=True, routes=tuple(Route)).hosts_likely

    nat, same, other = (
        record("198.18.1.2", "independent"),
        record("198.18.1.2", "independent"),
        record("198.18.2.2", "independent"),
    )
    assert likely(nat, same)
    assert not likely(nat, other)
    assert likely(nat, record("198.18.3.2", "none"))


def test_an_end_with_nothing_to_dial_still_waits_to_be_dialled() -> None:
    # A Lambda worker has no host candidate; its peer has a public address and nothing else.
    ours = Candidate(CandidateType.HOST, TransportAddress("198.19.2.10", 22841))
    theirs = Candidate(CandidateType.SRFLX, TransportAddress("198.18.1.2", 20319))
    mine = Record(
        ours.address, ours.address, candidates=(ours,), nat=NatFacts(records.Mapping.NONE)
    )
    peer = Record(theirs.address, theirs.address, candidates=(theirs,))

    def technique(a: Record, b: Record, *routes: Route) -> Technique:
        return make_plan(a, b, second=False, sending=True, routes=routes).technique

    assert technique(mine, peer, Route.HOST, Route.PUNCHED) is Technique.HOLD_AND_DIAL
    assert technique(peer, mine, Route.HOST, Route.PUNCHED) is Technique.HOLD_AND_DIAL
    assert technique(mine, peer, Route.PUNCHED, Route.S3) is Technique.NONE


# Ports that cannot be predicted.

APDM = Nat(mapping=Mapping.APDM, ports=Ports.RANDOM)
APDM_EIF = replace(APDM, filtering=Filtering.EIF)
CONE = Nat(filtering=Filtering.EIF)


_MAPPINGS = {
    Mapping.NONE: records.Mapping.NONE,
    Mapping.EIM: records.Mapping.INDEPENDENT,
}


def facts(nat: Nat) -> NatFacts:
    """What an end learns of its NAT from STUN."""
    return NatFacts(
        _MAPPINGS.get(nat.mapping, records.Mapping.DEPENDENT),
        records.Filtering.INDEPENDENT
        if nat.filtering is Filtering.EIF
        else records.Filtering.DEPENDENT,
    )


@pytest.mark.parametrize(
    ("a", "b", "technique"),
    [
        (APDM, CONE, Technique.LISTEN),
        (APDM, Nat(static=True, filtering=Filtering.EIF), Technique.LISTEN),
        (APDM_EIF, DROP, Technique.LISTEN),
        (APDM_EIF, RST, Technique.LISTEN),
        (APDM_EIF, APDM, Technique.LISTEN),
        (APDM, DROP, Technique.NONE),
        (APDM, RST, Technique.NONE),
        (APDM, APDM, Technique.NONE),
        (CONE, RST, Technique.HOLD_AND_DIAL),
    ],
)
@pytest.mark.parametrize("second", [0, 1])
def test_the_plan_of_both_ends_leads_to_the_route_that_is_possible(
    a: Nat, b: Nat, technique: Technique, second: int
) -> None:
    for seed in range(5):
        world = World([a], [b], rtt=0.02, seed=seed)
        ports = (21000, 22000)
        records = []
        for side, nat in enumerate((a, b)):
            public = TransportAddress(*world.mapped(side, ports[side]))
            srflx = Candidate(CandidateType.SRFLX, public)
            records.append(Record(public, public, candidates=(srflx,), nat=facts(nat)))
        plans = [
            make_plan(
                records[side],
                records[1 - side],
                second=side == second,
                sending=side == 0,
                routes=tuple(Route),
            )
            for side in (0, 1)
        ]
        assert [plan.technique for plan in plans] == [technique] * 2
        if technique is Technique.NONE:
            continue
        ends = [Checks(world.hosts[i], (ports[i],), plans[i], seed) for i in (0, 1)]
        late = random.Random(seed).uniform(0, POLL)
        took = world.meet(ends[0], ends[1], skew=-late if second else late, seconds=2.5)
        assert took is not None and took < 0.3
