"""The check list, and every technique that lost to it, against simulated conntrack NATs.

The table of docs/nat-traversal.md ("What was measured"), reproduced without a socket and in
simulated time: tests/nat does the same with real ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from punchlib.core.candidates import Candidate, CandidatePair, CandidateType, TransportAddress
from punchlib.core.simultaneous_open import ATTEMPTS, Plan, Technique
from tests.support.netlab_kinds import Filtering, Mapping, Nat, Ports, Unsolicited
from tests.support.simnet import Address, SimHost
from tests.support.simnet_ends import Checks, End, Hold, Naive, OpenAndListen, Redial, World

TRIALS = 30
POLL = 0.05

DROP = Nat()
RST = Nat(unsolicited=Unsolicited.RST)
ICMP = Nat(unsolicited=Unsolicited.ICMP)
COLUMNS = {
    "drop/drop": (DROP, DROP),
    "one rst": (DROP, RST),
    "rst/rst": (RST, RST),
    "icmp/icmp": (ICMP, ICMP),
}

Make = Callable[[World, int], End]


def share(make: Make, boxes: tuple[Nat, Nat], rtt: float = 0.02) -> float:
    """How many of the trials connect; starts are up to 0.3 s apart."""
    met = 0
    for seed in range(TRIALS):
        world = World([boxes[0]], [boxes[1]], rtt=rtt, seed=seed)
        skew = random.Random(seed).uniform(-0.3, 0.3)
        met += world.meet(make(world, 0), make(world, 1), skew=skew) is not None
    return met / TRIALS


def at(
    world: World, side: int, ports: tuple[int, int] = (21000, 22000)
) -> tuple[SimHost, int, Address]:
    """Arguments of an `End`: host, own port, peer's public address."""
    return world.hosts[side], ports[side], world.mapped(1 - side, ports[1 - side])


def naive(world: World, side: int) -> End:
    return Naive(*at(world, side))


def redial(world: World, side: int) -> End:
    return Redial(*at(world, side), pause=0.3)


def race(world: World, side: int) -> End:
    return Redial(*at(world, side), pause=0.0)


def open_and_listen(world: World, side: int) -> End:
    return OpenAndListen(*at(world, side))


# Shares that each technique must stay within, by column.
ALL, NONE, HALF, SOME, NOT_ALL = (1, 1), (0, 0), (0.25, 0.75), (0, 0.4), (0, 0.95)


@pytest.mark.parametrize(
    ("technique", "row"),
    [
        (naive, (ALL, HALF, SOME, SOME)),
        (redial, (ALL, ALL, NOT_ALL, NOT_ALL)),
        (race, (ALL, ALL, ALL, ALL)),
        (open_and_listen, (NONE, NONE, NONE, NONE)),
    ],
)
def test_the_table_of_the_naive_techniques(
    technique: Make, row: tuple[tuple[float, float], ...]
) -> None:
    for (name, boxes), (low, high) in zip(COLUMNS.items(), row, strict=True):
        assert low <= share(technique, boxes) <= high, name


# Hold and dial, by the check list.

EIM_RANDOM = Nat(ports=Ports.RANDOM)
KINDS: dict[str, list[Nat]] = {
    "drop": [DROP],
    "rst": [RST],
    "icmp": [ICMP],
    "random port": [EIM_RANDOM],
    "random port, rst": [replace(EIM_RANDOM, unsolicited=Unsolicited.RST)],
    "full cone": [Nat(filtering=Filtering.EIF)],
    "1:1": [Nat(static=True)],
    "firewall": [Nat(mapping=Mapping.NONE)],
    "firewall, rst": [Nat(mapping=Mapping.NONE, unsolicited=Unsolicited.RST)],
    "double": [DROP, DROP],
    "double, rst": [RST, RST],
}


def punch(
    a: list[Nat],
    b: list[Nat],
    *,
    seed: int,
    technique: Technique = Technique.HOLD_AND_DIAL,
    holders: tuple[bool, bool] = (False, True),
    rtt: float = 0.02,
    loss: float = 0.0,
    skew: float | None = None,
    ports: int = 2,
    hops: int = 1,
    seconds: float = 2.5,
    listening: bool = False,
) -> float | None:
    """One attempt of two check lists; seconds from the later start, or None.

    Without `skew` the holder, who is second to arrive, starts first: the dialler learns of it at
    its next poll.
    """
    world = World(a, b, rtt=rtt, loss=loss, hops=hops, seed=seed)
    mine = [(21000, 21001)[:ports], (22000, 22001)[:ports]]
    remotes = [[world.mapped(side, port) for port in mine[side]] for side in (0, 1)]
    ends = []
    for side in (0, 1):
        pairs = tuple(
            CandidatePair(
                n, Candidate(CandidateType.SRFLX, TransportAddress(*remotes[1 - side][n]))
            )
            for n in range(ports)
        )
        plan = Plan(
            technique,
            holders[side],
            seconds,
            side == 0,
            pairs,
            (),
            listening and holders[side],
        )
        ends.append(Checks(world.hosts[side], mine[side], plan, seed))
    if skew is None:
        late = random.Random(seed).uniform(0, POLL)
        skew = late if holders[0] else -late
    return world.meet(ends[0], ends[1], skew=skew, seconds=seconds)


@pytest.mark.parametrize("b", KINDS)
@pytest.mark.parametrize("a", KINDS)
def test_hold_and_dial_succeeds_at_the_first_attempt(a: str, b: str) -> None:
    for rtt in (0.0, 0.02, 0.1):
        for seed in range(4):
            took = punch(KINDS[a], KINDS[b], seed=seed, rtt=rtt)
            assert took is not None, f"rtt {rtt}, seed {seed}"
            # No second of waiting for a retransmission.
            assert took < 2 * rtt + 0.25, f"rtt {rtt}, seed {seed}: {took}"


@pytest.mark.parametrize("skew", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("nat", ["drop", "rst", "icmp"])
def test_a_dialler_that_is_late_finds_the_holder_on_any_rung(nat: str, skew: float) -> None:
    for seed in range(8):
        late = -skew - random.Random(seed).uniform(0, 0.05)
        assert punch([RST], KINDS[nat], seed=seed, skew=late, seconds=6.0) is not None


def test_five_percent_of_loss_costs_time_but_not_the_connection() -> None:
    times = [punch([DROP], [RST], seed=seed, loss=0.05, seconds=6.0) for seed in range(200)]
    assert all(took is not None for took in times)
    # The second pair of ports makes up for a lost SYN: few wait for the kernel's second one.
    slow = [took for took in times if took is not None and took > 0.9]
    assert len(slow) <= 0.06 * len(times)


def test_two_ports_lose_less_time_than_one() -> None:
    def slow(ports: int) -> int:
        times = [
            punch([DROP], [DROP], seed=seed, loss=0.05, ports=ports, seconds=6.0)
            for seed in range(200)
        ]
        return sum(took is None or took > 0.9 for took in times)

    assert slow(2) < slow(1)


@pytest.mark.parametrize("boxes", COLUMNS.values(), ids=COLUMNS)
def test_the_race_meets_where_packets_take_time_to_cross(boxes: tuple[Nat, Nat]) -> None:
    for seed in range(8):
        took = punch([boxes[0]], [boxes[1]], seed=seed, technique=Technique.RACE, skew=0.01 * seed)
        assert took is not None


@pytest.mark.parametrize("hops", [1, 3, 8])
def test_the_number_of_hops_between_does_not_matter(hops: int) -> None:
    for seed in range(10):
        assert punch([RST], [RST], seed=seed, hops=hops) is not None


def test_every_rung_reaches_the_peers_nat() -> None:
    # No router in between: TTL 2 reaches the other NAT, which answers; the holder ends up racing.
    for seed in range(10):
        assert punch([RST], [RST], seed=seed, hops=0, rtt=0.01) is not None


def test_random_ports_reach_a_holder_that_listens_and_lets_anybody_in() -> None:
    random_port = Nat(mapping=Mapping.APDM, ports=Ports.RANDOM)
    cone = Nat(filtering=Filtering.EIF)
    for seed in range(10):
        assert punch([random_port], [cone], seed=seed, listening=True) is not None
        assert punch([random_port], [cone], seed=seed) is None, "holding alone never works"
        assert punch([random_port], [DROP], seed=seed, listening=True) is None


def test_the_budget_of_all_attempts_ends_before_s3_must_flow() -> None:
    assert sum(seconds for _, seconds in ATTEMPTS) <= 5.5


# Why: the traps, one at a time.


def hold_against_dialler(
    boxes: tuple[Nat, Nat], *, min_ttl: int = 10, raise_ttl: bool = True
) -> float:
    """Share of trials in which a single SYN that dies half-way meets a patient dialler."""
    met = 0
    for seed in range(10):
        world = World([boxes[0]], [boxes[1]], rtt=0.02, seed=seed)
        holder = Hold(*at(world, 0), ttl=2, min_ttl=min_ttl, raise_ttl=raise_ttl)
        dialler = Redial(*at(world, 1), pause=0.01)
        # Before the first retransmission, which would leave with whatever TTL there is then.
        met += world.meet(holder, dialler, skew=0.1, seconds=0.7) is not None
    return met / 10


def test_a_hold_needs_min_ttl_and_the_ttl_raised_again() -> None:
    for boxes in COLUMNS.values():
        assert hold_against_dialler(boxes) == 1
        assert hold_against_dialler(boxes, min_ttl=0) == 0, "a time-exceeded kills the socket"
        assert hold_against_dialler(boxes, raise_ttl=False) == 0, "the SYN-ACK dies on the way"


def test_a_silent_socket_must_not_be_closed_to_redial_on_the_same_port() -> None:
    class Impatient(Naive):
        def start(self) -> None:
            socket = self.dial()

            def again() -> None:
                if not self.up:
                    socket.close()
                    self.start()

            self.host.clock.after(0.2, again)

    for seed in range(10):
        world = World([DROP], [DROP], rtt=0.3, seed=seed)
        ends = Impatient(*at(world, 0)), Impatient(*at(world, 1))
        assert world.meet(*ends, skew=0.1) is None
        patient = World([DROP], [DROP], rtt=0.3, seed=seed)
        assert patient.meet(Naive(*at(patient, 0)), Naive(*at(patient, 1)), skew=0.1) is not None


def test_lock_a_syn_that_meets_no_socket_spoils_the_port() -> None:
    for seed in range(10):
        world = World([DROP], [DROP], rtt=0.02, seed=seed)
        opener, dialler = Naive(*at(world, 0)), Naive(*at(world, 1))
        opener.dial(ttl=2, min_ttl=10).close()  # our NAT has an entry, and no socket is behind it
        dialler.start()
        world.clock.run(0.2)
        assert world.meet(Naive(*at(world, 0)), End(*at(world, 1))) is None, "the same port"
        fresh = (23000, 24000)
        ends = Naive(*at(world, 0, fresh)), Naive(*at(world, 1, fresh))
        assert world.meet(*ends) is not None, "fresh ports"


def test_an_old_peer_is_met_when_we_hold_before_it_sees_us() -> None:
    for ours in KINDS.values():
        for theirs in (DROP, Nat(static=True)):
            for seed in range(4):
                world = World(ours, [theirs], rtt=0.02, seed=seed)
                holder = hold_plan(world, seed)
                old = Naive(*at(world, 1))
                assert world.meet(holder, old, skew=0.1, seconds=6.0) is not None


def hold_plan(world: World, seed: int) -> Checks:
    remote = Candidate(CandidateType.SRFLX, TransportAddress(*world.mapped(1, 22000)))
    plan = Plan(Technique.HOLD_AND_DIAL, True, 60.0, True, (CandidatePair(0, remote),), ())
    return Checks(world.hosts[0], (21000,), plan, seed)
