"""One end alone is told what happens: what it does, and what it says of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.config import Config, Route, Security
from punchlib.core.agreement import MOST_ATTEMPTS, Agreement
from punchlib.core.events import AttemptStarted, Connected, PeerSeen, Registered, Spec, StunAnswered
from punchlib.core.records import Filtering, Mapping, Nat, Record, Withdrawal
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
from tests.unit.core.test_agreement import HARD, RECV, SEND, record


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
