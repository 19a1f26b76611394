"""Two ends that are never in step: whatever stalls, they take the same way, and soon.

Both agreements on a clock of their own, driven as `net/establishing.py` does it. The network is a
rule: a pair of records connects when both ends make that attempt for a moment, with opposite roles
and a technique that works here.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.config import Config, Route, Security
from punchlib.core.agreement import MOST_ATTEMPTS, Agreement
from punchlib.core.candidates import Candidate, CandidateType, TransportAddress
from punchlib.core.events import (
    AttemptStarted,
    Connected,
    PeerSeen,
    Registered,
    Spec,
    StunAnswered,
)
from punchlib.core.progress import Progress
from punchlib.core.records import Filtering, Mapping, Nat, Record, Withdrawal
from punchlib.core.simultaneous_open import Technique
from punchlib.core.transitions import (
    TRANSITIONS,
    Command,
    Fail,
    Look,
    Register,
    State,
    Try,
    Wait,
    What,
)
from punchlib.errors import Cause, NoRoute, PeerNotVerified, PunchError, RendezvousTimeout
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


# One end alone, told what happens


def alone(spec: Spec = SEND, *, fallback: bool = False, **config: Any) -> tuple[Agreement, Command]:
    """An agreement that has gathered, and what it does when nobody is there."""
    core = Agreement(spec, Config(security=Security.AUTHENTICATED, **config), fallback=fallback)
    assert core.start() == Register(1, "", refuse_v1=not core._config.v1_refused_by)
    return core, register(core, None, 0.0)


def register(core: Agreement, there: str | None, now: float, **fields: Any) -> Command:
    core.on_gathered(record(**fields))
    return core.on_registered(True, there, now)


def found(text: str, **config: Any) -> tuple[Agreement, Command]:
    """An agreement whose registration finds this in the peer's place."""
    core = Agreement(SEND, Config(security=Security.AUTHENTICATED, **config), fallback=False)
    core.start()
    return core, register(core, text, 0.0, nat=config.get("nat", HARD))


RANDOM_PORTS = Nat(Mapping.DEPENDENT, Filtering.DEPENDENT)


@pytest.mark.parametrize("attempt", [1, 4, 60])
def test_what_an_earlier_run_left_is_waited_out(attempt: int) -> None:
    """However far it had come: nobody says that it is there, so it is not the end."""
    core, command = found(record(attempt=attempt).to_json())
    now = 0.0
    while isinstance(command, Try):
        now += command.plan.seconds
        assert isinstance(core.on_attempt_failed(now, tried="nobody"), Look)
        command = core.on_record(core.place.text, now)
        if isinstance(command, Register):
            command = register(core, core.place.text, now, attempt=command.attempt)
    assert command == Wait()
    assert now <= 10.0, "it is not dialled for long"
    failed = core.on_deadline(300.0)
    assert isinstance(failed.error, RendezvousTimeout)
    assert "earlier run's" in failed.error.message


@pytest.mark.parametrize(
    "hopeless",
    [record(attempt=4), record(nat=RANDOM_PORTS), record(security=Security.ENCRYPTED)],
    ids=["all tried", "no direct way", "asks for encryption"],
)
def test_a_hopeless_record_is_the_end_only_when_its_owner_is_there(hopeless: Record) -> None:
    core = Agreement(SEND, Config(security=Security.AUTHENTICATED), fallback=False)
    core.start()
    assert register(core, hopeless.to_json(), 0.0, attempt=4) == Wait()
    assert core.place.problem
    # The same from somebody who came after us.
    other = replace(hopeless, side="11" * 8)
    failed = core.on_record(other.to_json(), 1.0)
    assert isinstance(failed, Fail)
    assert isinstance(failed.error, (NoRoute, PeerNotVerified))
    assert "11" * 8 in core.word(4, Cause(failed.word)), "and it is told"


def test_one_of_two_who_cannot_meet_sees_it_and_tells_the_other() -> None:
    first, command = alone(SEND)
    assert command == Wait()
    mine = first._signed(first.mine) if first.mine else ""
    second = Agreement(RECV, Config(security=Security.AUTHENTICATED), fallback=False)
    second.start()
    text = second.on_gathered(record(nat=RANDOM_PORTS))
    assert second.on_registered(True, mine, 1.0) == Wait()
    failed = first.on_record(text, 1.0)
    assert isinstance(failed, Fail) and isinstance(failed.error, NoRoute)
    told = second.on_record(first.word(failed.error.exit_code, Cause(failed.word)), 1.1)
    assert isinstance(told, Fail) and isinstance(told.error, NoRoute)
    assert "the peer reports: no direct way" in told.error.message


@given(st.text() | st.builds(json.dumps, st.dictionaries(st.text(), st.integers())))
def test_whatever_stands_there_is_waited_out_or_named(text: str) -> None:
    _, command = found(text)
    assert isinstance(command, (Wait, Fail))
    if isinstance(command, Fail):
        assert isinstance(command.error, PunchError)


def test_what_was_found_at_an_address_is_told_to_nobody() -> None:
    """Who may write the table could else look around in our network through us."""
    core, _ = alone()
    assert isinstance(core.on_record(record().to_json(), 1.0), Try)
    secret = "10.0.0.5:22: expected a greeting, got SSH-2.0-OpenSSH"
    core.on_attempt_failed(2.0, tried=secret)
    failed = core.on_deadline(300.0)
    assert secret in str(failed.error), "the user is"
    assert "SSH" not in core.word(4, Cause(failed.word))
    assert "10.0.0.5" not in core.word(4, Cause(failed.word))


def test_attempts_are_bounded_whoever_writes_the_table() -> None:
    core, command = alone()
    made = 0
    while not isinstance(command, Fail):
        command = core.on_record(record().to_json(), made * 0.02)
        made += isinstance(command, Try)
        assert made <= MOST_ATTEMPTS
    assert isinstance(command.error, NoRoute)
    assert made == MOST_ATTEMPTS


def test_who_stood_still_pauses_before_the_next_attempt() -> None:
    core, _ = alone()
    core.on_record(record().to_json(), 1.0)
    assert core.on_attempt_failed(9.0, tried="nobody", stood_still=3.0) == Look()
    assert core.on_record(core.place.text, 9.0) == Wait(3.0)
    assert core.state is State.PAUSING
    assert core.mine is not None
    tried = core._pair[1]
    again = Register(2, tried, refuse_v1=True)
    assert core.on_pause_over(12.0) == again
    # Who hears meanwhile that the peer has registered anew for another attempt does not pause.
    core.state = State.PAUSING
    assert core.on_record(record(tried=core.mine.side).to_json(), 10.0) == again


def test_garbage_does_not_hide_us() -> None:
    """The store takes it for an old peer's record, and ours waits for us to hold."""
    core = Agreement(SEND, Config(), fallback=False)
    core.start()
    core.on_gathered(record())
    assert core.on_registered(False, "{garbage", 0.0) == Wait(show=True)
    assert core.on_shown("{garbage", 0.0) is None
    assert isinstance(core.on_record(record(cert=b"c").to_json(), 1.0), (Try, Fail))


def test_a_lost_mapping_is_registered_anew_for_the_same_attempt() -> None:
    core, _ = alone()
    assert core.on_mapping_lost(5.0) == Register(1, "", refuse_v1=True)
    register(core, None, 5.0)
    assert [type(e) for e in core.take_events()].count(StunAnswered) == 1, "it is said once"


def test_what_is_reported_in_its_order() -> None:
    core, _ = alone()
    core.on_record(record().to_json(), 2.0)
    core.on_connected(2.5, Route.PUNCHED, "hold-and-dial", "a", "b")
    events = core.take_events()
    kinds = [StunAnswered, Registered, PeerSeen, AttemptStarted, Connected]
    assert [type(event) for event in events] == kinds
    assert events[-1] == Connected(SEND, Route.PUNCHED, 1, "hold-and-dial", "a", "b", 500.0)
    assert core.take_events() == []


def test_a_withdrawal_of_another_run_is_no_news() -> None:
    core, command = found(Withdrawal("00" * 8, 4, Cause("long ago")).to_json())
    assert command == Wait()
    assert "earlier run" in core.place.problem


def test_every_state_is_reached_and_every_way_ends() -> None:
    reached, frontier = set(), {State.GATHERING}
    while frontier:
        reached |= frontier
        frontier = {b for (a, _), b in TRANSITIONS.items() if a in frontier} - reached
    assert reached == set(State)
    assert {what for _, what in TRANSITIONS} == set(What)
    under_way = set(State) - {State.CONNECTED, State.FAILED}
    assert {a for a, _ in TRANSITIONS} == under_way
    for state in under_way:
        assert TRANSITIONS[state, What.OVER] is State.FAILED
