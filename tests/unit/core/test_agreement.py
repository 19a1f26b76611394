"""Two ends that are never in step: whatever stalls, they take the same way, and soon.

Both agreements on a clock of their own, driven as `net/establishing.py` does it. The network is a
rule: a pair of records connects when both ends make that attempt for a moment, with opposite roles
and a technique that works here.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.config import Config, Route, Security
from punchlib.core.agreement import Agreement
from punchlib.core.candidates import Candidate, CandidateType, TransportAddress
from punchlib.core.events import Connected, Spec
from punchlib.core.progress import Progress
from punchlib.core.records import Filtering, Mapping, Nat, Record
from punchlib.core.simultaneous_open import Technique
from punchlib.core.transitions import Command, Fail, Look, Register, Try, Wait
from punchlib.rendezvous.memory import MemoryStore
from punchlib.rendezvous.store import Registered as Answer
from punchlib.rendezvous.store import Slot
from punchlib.rendezvous.watcher import FASTEST, Watcher
from tests.support.virtual_loop import VirtualLoop

#: Seconds that both ends must be at it together.
TOGETHER = 0.1
TICK = 0.02
NOBODY_LISTENS = TransportAddress("192.0.2.1", 1000)
SEND, RECV = Spec("k", "0", "1", sending=True), Spec("k", "1", "0", sending=False)
HARD = Nat(Mapping.INDEPENDENT, Filtering.DEPENDENT)


def record(**fields: Any) -> Record:
    """One with two punching ports."""
    srflx = Candidate(CandidateType.SRFLX, NOBODY_LISTENS)
    known: dict[str, Any] = {
        "side": secrets.token_hex(8),
        "expires": 0,  # what a clock says does not count
        "security": Security.AUTHENTICATED,
        "candidates": (srflx, srflx),
        "nat": HARD,
    }
    return Record(NOBODY_LISTENS, NOBODY_LISTENS, **(known | fields))


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

    async def register(self, *args: Any, **kw: Any) -> Answer:
        await self._machine.sleep(self._machine.store)
        answer = await super().register(*args, **kw)
        await self._machine.sleep(self._machine.store)
        return answer

    async def read(self, slots: Any) -> dict[Slot, str]:
        await self._machine.sleep(self._machine.store)
        found = await super().read(slots)
        await self._machine.sleep(self._machine.store)
        return found


@dataclass
class World:
    """What both machines stand in.

    Attributes:
        works: the techniques that get through the NATs here.
        at_it: what each end is trying now, and since when.
    """

    works: frozenset[Technique]
    machines: dict[bool, Machine]
    ends: dict[bool, Agreement] = field(default_factory=dict)
    at_it: dict[bool, tuple[str, str, str, bool, float]] = field(default_factory=dict)
    #: Pairs of sides that have a connection: who was at it cannot have missed it.
    up: set[tuple[str, str]] = field(default_factory=set)
    table: dict[Slot, str] = field(default_factory=dict)

    async def meet(
        self, sending: bool, how: str, holding: bool, seconds: float, progress: Progress
    ) -> bool:
        """Whether the two came together within that time, by this end's own progress."""
        loop, machine = asyncio.get_running_loop(), self.machines[sending]
        core = self.ends[sending]
        assert core.mine is not None and core.place.record is not None
        sides = core.mine.side, core.place.record.side
        pair = sides if sending else sides[::-1]
        self.at_it[sending] = (*pair, how, holding, loop.time())
        try:
            while progress.lived < seconds:
                await machine.sleep(TICK)
                progress.tick(loop.time())
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

    async def run(self) -> dict[bool, Connected]:
        async def one(spec: Spec) -> Connected:
            machine = self.machines[spec.sending]
            await machine.sleep(machine.start)
            core = Agreement(spec, Config(security=Security.AUTHENTICATED), fallback=True)
            self.ends[spec.sending] = core
            return await End(self, machine, core).run()

        ends = await asyncio.gather(one(SEND), one(RECV))
        return {event.spec.sending: event for event in ends}


class End:
    """Carries out what one agreement says."""

    def __init__(self, world: World, machine: Machine, core: Agreement) -> None:
        self.world = world
        self.machine = machine
        self.core = core
        self.store = Store(world.table, machine)
        self.watcher = Watcher(self.store)
        self.loop = asyncio.get_running_loop()
        self.events: list[Any] = []

    async def run(self) -> Connected:
        try:
            command: Command | None = self.core.start()
            while command is not None:
                command = await self._carry_out(command)
        finally:
            await self.watcher.close()
        connected = self.core.take_events()[-1]
        assert isinstance(connected, Connected)
        return connected

    async def _carry_out(self, command: Command) -> Command | None:
        core, loop = self.core, self.loop
        match command:
            case Register(attempt, tried, refuse):
                await self.machine.sleep(self.machine.stun)
                text = core.on_gathered(record(attempt=attempt, tried=tried))
                mine = Slot(*core.mine_slot)
                answer = await self.store.register(
                    mine, text, core.spec.peer, expires=0, refuse_v1_peer=refuse
                )
                return core.on_registered(answer.accepted, answer.peer, loop.time())
            case Wait(seconds):
                try:
                    async with asyncio.timeout(seconds):
                        return core.on_record(await self._change(FASTEST), loop.time())
                except TimeoutError:
                    return core.on_pause_over(loop.time())
            case Look():
                slot = Slot(*core.place.slot)
                return core.on_record((await self.store.read([slot])).get(slot), loop.time())
            case Try():
                return await self._try(command)
            case Fail():
                raise command.error

    async def _change(self, fastest: float) -> str:
        slot = Slot(*self.core.place.slot)
        return await self.watcher.changed(slot, self.core.place.text, fastest=fastest)

    async def _try(self, command: Try) -> Command | None:
        plan, progress = command.plan, Progress(self.loop.time())
        over_s3 = plan.technique is Technique.NONE
        how, limit = ("s3", 1e9) if over_s3 else (plan.technique, plan.seconds)
        meeting = asyncio.ensure_future(
            self.world.meet(self.core.spec.sending, how, plan.holding, limit, progress)
        )
        changing = asyncio.ensure_future(self._change(FASTEST if command.behind else 0.2))
        try:
            await asyncio.wait([meeting, changing], return_when=asyncio.FIRST_COMPLETED)
            now = self.loop.time()
            if not meeting.done():
                return self.core.on_record(changing.result(), now)
            if not meeting.result():
                return self.core.on_attempt_failed(
                    now, tried="nobody answers", stood_still=progress.stood_still
                )
            route = Route.S3 if over_s3 else Route.PUNCHED
            self.core.on_connected(now, route, "objects" if over_s3 else how, "-", "-")
            return None
        finally:
            for task in (meeting, changing):
                task.cancel()
            await asyncio.gather(meeting, changing, return_exceptions=True)


def run(world: World) -> tuple[Connected, Connected, float]:
    """Both ends' connections, and how long after the last one's start they had them."""
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
    assert sender.how == receiver.how
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
    assert sender.how == receiver.how == (works or "objects")
    assert sender.attempt == receiver.attempt == order.index(works) + 1
    assert took < (0.4, 3.2, 5.1, 6.7)[order.index(works)]


def test_the_newcomer_is_met_with_the_first_technique() -> None:
    """Its peer has tried everything with what an earlier run left."""
    stale = record(side="00" * 8)
    world = World(ALL, {True: Machine(start=30.0), False: Machine()})
    world.table[Slot("k", "0")] = stale.to_json()
    sender, receiver, took = run(world)
    assert sender.how == receiver.how == Technique.HOLD_AND_DIAL
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
