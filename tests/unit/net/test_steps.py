"""Two ends that are never in step: whatever stalls, they take the same way, and soon.

The real `Establishing` on a clock of its own. The network is a rule: a pair of records connects
when both ends make that attempt for a moment, with opposite roles and a technique that works here.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.config import Config, Route, Security
from punchlib.core.candidates import Candidate, CandidateType, TransportAddress
from punchlib.core.handshake import Terms
from punchlib.core.records import Filtering, Mapping, Nat, Record
from punchlib.core.simultaneous_open import Plan, Technique
from punchlib.net import establishing
from punchlib.net.attempt import Winner
from punchlib.net.connection import Connection, Spec
from punchlib.net.establishing import Establishing, Shared
from punchlib.net.gather import Ends
from punchlib.rendezvous.memory import MemoryStore
from punchlib.rendezvous.store import Registered, Slot
from punchlib.rendezvous.watcher import Watcher
from tests.support.virtual_loop import VirtualLoop

#: Seconds that both ends must be at it together.
TOGETHER = 0.1
TICK = 0.02
NOBODY_LISTENS = TransportAddress("192.0.2.1", 1000)


@dataclass
class Machine:
    """One end. While it is frozen nothing of it moves, though the world does.

    Attributes:
        start: when it begins, seconds.
        stun: how long it takes to learn its address, seconds.
        store: how long a call of the store takes, each way, seconds.
        freezes: from when it is frozen, and for how long.
    """

    start: float = 0.0
    stun: float = 0.0
    store: float = 0.0
    freezes: list[tuple[float, float]] = field(default_factory=list)

    def frozen_for(self, now: float) -> float:
        return max((a + n - now for a, n in self.freezes if a <= now < a + n), default=0.0)

    async def sleep(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(seconds)
        while left := self.frozen_for(loop.time()):
            await asyncio.sleep(left)


class Store(MemoryStore):
    """The one table, as seen from one machine."""

    def __init__(self, table: dict[Slot, str], machine: Machine) -> None:
        super().__init__()
        self.records = table
        self._machine = machine

    async def register(self, *args: Any, **kw: Any) -> Registered:
        await self._machine.sleep(self._machine.store)
        answer = await super().register(*args, **kw)
        await self._machine.sleep(self._machine.store)
        return answer

    async def read(self, slots: Any) -> dict[Slot, str]:
        await self._machine.sleep(self._machine.store)
        found = await super().read(slots)
        await self._machine.sleep(self._machine.store)
        return found


class Stun:
    """Knows the address after a while, and never loses it."""

    failures = ()

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    async def nat(self) -> Nat:
        return Nat(Mapping.INDEPENDENT, Filtering.DEPENDENT)

    async def keep(self, _: object) -> None:
        await asyncio.get_running_loop().create_future()


class Punched(Ends):
    """Two punching ports, no listener."""

    def settle(self, nat: Nat, routes: Any, *, on_lambda: bool) -> None:
        self.nat = nat
        srflx = Candidate(CandidateType.SRFLX, NOBODY_LISTENS)
        self.candidates = (srflx, srflx)


@dataclass
class World:
    """What both machines stand in.

    Attributes:
        works: the techniques that get through the NATs here.
        at_it: what each end is trying now, and since when.
    """

    works: frozenset[Technique]
    machines: dict[bool, Machine]
    ends: dict[bool, Establishing] = field(default_factory=dict)
    at_it: dict[bool, tuple[str, str, str, bool, float]] = field(default_factory=dict)
    #: Pairs of sides that have a connection: who was at it cannot have missed it.
    up: set[tuple[str, str]] = field(default_factory=set)
    table: dict[Slot, str] = field(default_factory=dict)

    async def meet(self, sending: bool, how: str, holding: bool, seconds: float) -> bool:
        """Whether the two came together within that time."""
        loop, machine = asyncio.get_running_loop(), self.machines[sending]
        meeting = self.ends[sending].meeting
        assert meeting.peer is not None
        sides = meeting.mine.side, meeting.peer.side
        pair = sides if sending else sides[::-1]
        deadline = loop.time() + seconds
        self.at_it[sending] = (*pair, how, holding, loop.time())
        try:
            while loop.time() < deadline:
                await machine.sleep(TICK)
                if pair in self.up or self._together(pair, how):
                    self.up.add(pair)
                    return True
            return False
        finally:
            del self.at_it[sending]

    def _together(self, pair: tuple[str, str], how: str) -> bool:
        now = asyncio.get_running_loop().time()
        if len(self.at_it) < 2 or any(m.frozen_for(now) for m in self.machines.values()):
            return False
        mine, theirs = self.at_it.values()
        roles_fit = mine[3] != theirs[3] or how in ("s3", Technique.RACE)
        since = max(mine[4], theirs[4])
        return (
            mine[:2] == theirs[:2] == pair
            and mine[2] == theirs[2] == how
            and roles_fit
            and now - since >= TOGETHER
            and (how == "s3" or how in self.works)
        )

    async def run(self) -> dict[bool, Connection]:
        async def one(sending: bool) -> None:
            machine = self.machines[sending]
            await machine.sleep(machine.start)
            store = Store(self.table, machine)
            config = Config(security=Security.AUTHENTICATED)
            shared = Shared(
                config,
                store,
                None,
                _Objects(self),
                lambda _: None,
                Watcher(store),
                Stun(machine),  # type: ignore[arg-type]
            )
            spec = Spec("k", *("01" if sending else "10"), sending=sending)
            self.ends[sending] = Establishing(shared, spec)
            try:
                done[sending] = await self.ends[sending].run()
            finally:
                await shared.watcher.close()

        done: dict[bool, Connection] = {}
        await asyncio.gather(one(True), one(False))
        return done


class _Objects:
    """The S3 route."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def open(self, terms: Terms) -> Any:
        assert await self._world.meet(terms.sending, "s3", False, 1e9)
        return object()


def attempts_in(world: World) -> type:
    class Attempt:
        def __class_getitem__(cls, _: object) -> type:
            return cls

        def __init__(self, plan: Plan, ends: Ends, **_: Any) -> None:
            self._plan = plan

        async def run(self) -> Winner[Any] | None:
            plan = self._plan
            if await world.meet(plan.sending, plan.technique, plan.holding, plan.seconds):
                return Winner(object(), Route.PUNCHED, ("192.0.2.1", 1), ("192.0.2.2", 2))
            return None

    return Attempt


def run(world: World) -> tuple[Connection, Connection, float]:
    """Both ends' connections, and how long after the last one's start they had them."""

    async def open_ports(stun: Any, _: object) -> Ends:
        await stun.machine.sleep(stun.machine.stun)
        return Punched([])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(establishing, "Attempt", attempts_in(world))
        patch.setattr(establishing, "open_ports", open_ports)
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            loop = runner.get_loop()
            done = runner.run(world.run())
            ended = loop.time()
    return done[True], done[False], ended - max(m.start for m in world.machines.values())


ALL = frozenset({Technique.HOLD_AND_DIAL, Technique.RACE, Technique.SWAPPED})
seconds = st.floats(0, 12).map(lambda s: round(s, 2))
machines = st.builds(
    Machine,
    start=seconds,
    stun=st.floats(0, 4).map(lambda s: round(s, 2)),
    store=st.sampled_from([0.001, 0.02, 0.2]),
    freezes=st.lists(st.tuples(seconds, seconds), max_size=3),
)


@given(machines, machines, st.sets(st.sampled_from(sorted(ALL))).map(frozenset))
def test_both_ends_take_the_same_way(a: Machine, b: Machine, works: frozenset[Technique]) -> None:
    sender, receiver, took = run(World(works, {True: a, False: b}))
    assert sender.route is receiver.route
    assert sender.technique == receiver.technique
    frozen = sum(n for m in (a, b) for _, n in m.freezes)
    assert took < 30 + frozen + 10 * max(a.stun, b.stun)


@pytest.mark.parametrize("works", [*sorted(ALL), ""], ids=lambda w: w or "nothing")
@pytest.mark.parametrize("skew", [-30.0, -1.0, 0.0, 0.005, 3.0])
def test_in_step_no_time_is_lost(works: str, skew: float) -> None:
    """Without a stall: one attempt after the other, both ends at the same one at once."""
    world = World(
        frozenset({Technique(works)}) if works else frozenset(),
        {
            True: Machine(start=max(0.0, skew), stun=0.01, store=0.003),
            False: Machine(start=max(0.0, -skew), stun=0.01, store=0.003),
        },
    )
    sender, receiver, took = run(world)
    order = [Technique.HOLD_AND_DIAL, Technique.RACE, Technique.SWAPPED, ""]
    assert sender.technique == receiver.technique == (works or "objects")
    assert sender.attempt == receiver.attempt == order.index(works) + 1
    assert took < (0.4, 3.2, 5.1, 6.7)[order.index(works)]


def test_the_newcomer_is_met_with_the_first_technique() -> None:
    """Its peer has tried everything with what an earlier run left."""
    stale = Record(
        NOBODY_LISTENS,
        NOBODY_LISTENS,
        side="00" * 8,
        expires=int(time.time()) + 300,
        security=Security.AUTHENTICATED,
        candidates=(Candidate(CandidateType.SRFLX, NOBODY_LISTENS),),
        nat=Nat(Mapping.INDEPENDENT, Filtering.DEPENDENT),
    )
    world = World(ALL, {True: Machine(start=30.0), False: Machine()})
    world.table[Slot("k", "0")] = stale.to_json()
    sender, receiver, took = run(world)
    assert sender.technique == receiver.technique == Technique.HOLD_AND_DIAL
    assert (sender.attempt, receiver.attempt) == (1, 5)
    assert took < 0.5


def test_a_stall_in_the_first_attempt() -> None:
    """Seen with 83 nodes on two cores: each made its attempts while the other waited, for ever."""
    a, b = Machine(), Machine(start=0.02, freezes=[(0.1, 6.7)])
    sender, _, took = run(World(ALL, {True: a, False: b}))
    assert sender.route is Route.PUNCHED
    assert took < 8


def test_the_virtual_clock_tells_a_dead_lock() -> None:
    with (
        pytest.raises(AssertionError, match="everybody waits"),
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
    ):
        runner.get_loop().run_until_complete(runner.get_loop().create_future())
