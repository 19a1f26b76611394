"""Dead or slow, without a socket and without waiting."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.core.liveness import Liveness, Signs
from punchlib.core.timing import TIMING
from punchlib.errors import PeerSilent

DEAD = "no acknowledgement for 15 s"
STALLED = "the peer's machine answers, its process has said nothing for 300 s"


class Watch:
    """Wakes up when it is due, or as late as it is told, and counts."""

    def __init__(
        self,
        *,
        ping: float | None = TIMING.ping,
        idle_ping: float | None = None,
        silence: float | None = None,
    ) -> None:
        self.now = 1000.0
        self.liveness = Liveness(TIMING, self.now, ping=ping, idle_ping=idle_ping, silence=silence)
        self.looks = 0
        self.pings: list[float] = []

    def until(self, end: float, signs: Callable[[float], Signs], *, late: float = 0.0) -> None:
        """Runs to `end`, seconds from the start; `signs` are asked with such seconds too."""
        while (due := self.liveness.get_timer()) + late <= 1000.0 + end:
            assert due > self.now, "it would never sleep"
            self.now = due + late
            self.looks += 1
            if self.liveness.handle_timer(self.now, signs(self.now - 1000.0)):
                self.pings.append(self.now - 1000.0)

    def dies(self, signs: Callable[[float], Signs], *, within: float) -> tuple[float, str]:
        """When it took the peer for dead, and why."""
        with pytest.raises(PeerSilent) as silent:
            self.until(within, signs)
        return self.now - 1000.0, silent.value.message


def test_an_idle_connection_costs_one_look_a_ping() -> None:
    """Both say PING every ten seconds, and the looks are made at the same moment."""
    watch = Watch()

    def signs(now: float) -> Signs:
        last = watch.pings[-1] if watch.pings else 0.0
        heard = now % 10 + 0.1
        return Signs(sent=now - last, waiting=heard, heard=heard, kernel=True, answered=heard)

    watch.until(1000, signs)
    assert watch.pings == [10.0 * n for n in range(1, 101)]
    assert watch.looks == 100


@pytest.mark.parametrize(("silence", "pause"), [(None, 30.0), (60.0, 20.0), (15.0, 5.0)])
def test_who_listens_says_less(silence: float | None, pause: float) -> None:
    """Its kernel's keep-alive asks as well, so it wakes up less."""
    watch = Watch(idle_ping=TIMING.idle_ping, silence=silence)

    def signs(now: float) -> Signs:
        last = watch.pings[-1] if watch.pings else 0.0
        return Signs(sent=now - last, waiting=1.0, heard=1.0, kernel=True, answered=1.0)

    watch.until(300, signs)
    assert watch.pings == pytest.approx([pause * n for n in range(1, int(300 / pause) + 1)])
    assert watch.looks <= 2 * len(watch.pings)


def test_who_does_not_listen_says_as_much_as_ever() -> None:
    """Its reader is slow, its window may be shut: its PINGs are what tells that it lives."""
    watch = Watch(idle_ping=TIMING.idle_ping)

    def signs(now: float) -> Signs:
        last = watch.pings[-1] if watch.pings else 0.0
        return Signs(sent=now - last, waiting=None, heard=1.0, kernel=True, answered=1.0)

    watch.until(300, signs)
    # The first look of all does not know yet how it is.
    assert [b - a for a, b in zip(watch.pings, watch.pings[1:], strict=False)] == [10.0] * (
        len(watch.pings) - 1
    )
    assert len(watch.pings) >= 29


def test_a_busy_connection_is_not_pinged() -> None:
    watch = Watch()
    busy = Signs(sent=0.01, waiting=5.0, heard=0.01, kernel=True, answered=0.01, outstanding=9)
    watch.until(1000, lambda _: busy)
    assert watch.pings == []
    assert watch.looks <= 100


def test_the_first_ping_is_not_later_for_what_was_sent_in_between() -> None:
    watch = Watch()

    def signs(now: float) -> Signs:
        last = max([7.0 if now >= 7 else 0.0, *watch.pings])
        return Signs(sent=now - last, kernel=True, answered=0.1)

    watch.until(40, signs)
    assert watch.pings == [17.0, 27.0, 37.0]


def test_no_ping_into_a_frame_that_is_on_its_way() -> None:
    watch = Watch()
    watch.until(100, lambda _: Signs(sent=60.0, sending=True, kernel=True, answered=1.0))
    assert watch.pings == []


@pytest.mark.parametrize("vanishes", [0.0, 3.0, 9.9, 10.1, 14.0, 100.0])
def test_a_vanished_machine_is_noticed_within_25_seconds(vanishes: float) -> None:
    """Nothing is acknowledged from then on; the PING that is due is what shows it."""
    watch = Watch()

    def signs(now: float) -> Signs:
        last = watch.pings[-1] if watch.pings else 0.0
        gone = last > vanishes
        return Signs(
            sent=now - last,
            waiting=now - min(now, vanishes),
            heard=now - min(now, vanishes),
            kernel=True,
            answered=now - min(now, max(vanishes, last if not gone else 0.0)),
            outstanding=int(gone),
            retransmits=5 * gone,
        )

    when, why = watch.dies(signs, within=vanishes + 60)
    assert DEAD in why
    assert 15 <= when - vanishes <= 25


def test_a_vanished_machine_in_mid_stream() -> None:
    """We cannot send on: the socket is full, a frame is half out."""
    watch = Watch()
    when, why = watch.dies(
        lambda now: Signs(
            sent=now,
            sending=True,
            waiting=now,
            heard=now,
            kernel=True,
            answered=now,
            outstanding=9,
            retransmits=6,
        ),
        within=60,
    )
    assert DEAD in why
    assert when == 15.0


def test_what_was_sent_just_now_owes_no_answer() -> None:
    """The connection was idle for long, so the last acknowledgement is old."""
    watch = Watch()
    watch.until(
        300,
        lambda _: Signs(sent=0.01, kernel=True, answered=400.0, outstanding=1),
    )


def test_a_shut_window_whose_probes_are_answered_is_a_slow_reader() -> None:
    """For hours: it reads nothing, but its process says PING."""
    watch = Watch()
    watch.until(
        20_000,
        lambda now: Signs(
            sent=now,
            sending=True,
            waiting=now % 10,
            heard=now % 10,
            kernel=True,
            answered=now % 120,  # the kernel's longest pause between probes
            probes=int(now % 120 < 1),  # one is on its way
        ),
    )


def test_a_window_that_shut_upon_data_is_a_slow_reader() -> None:
    """Its kernel asks again ever more seldom, and none of it counts as a retransmission."""
    Watch().until(
        20_000,
        lambda now: Signs(
            sent=now, sending=True, waiting=5.0, kernel=True, answered=now % 120, outstanding=1
        ),
    )


def test_one_lost_probe_is_no_death_while_the_process_speaks() -> None:
    """After minutes the kernel probes every two minutes: the next one tells."""
    Watch().until(
        20_000,
        lambda now: Signs(
            sent=now,
            sending=True,
            waiting=now % 10,
            heard=now % 10,
            kernel=True,
            answered=now % 240,
            probes=int(now % 240 > 120),
        ),
    )


@pytest.mark.parametrize(("probes", "speaks"), [(1, True), (3, False)])
def test_a_shut_window_whose_probes_are_not_answered_is_a_dead_machine(
    probes: int, speaks: bool
) -> None:
    """By one probe where PINGs are missed too, by three where there are none (the old wire)."""
    watch = Watch() if speaks else Watch(ping=None, silence=math.inf)

    def signs(now: float) -> Signs:
        since = max(0.0, now - 100)
        return Signs(
            sent=now,
            sending=True,
            waiting=since,
            heard=since,
            kernel=True,
            answered=since,
            probes=probes * (now > 101),
        )

    when, why = watch.dies(signs, within=200)
    assert DEAD in why
    assert 115 <= when <= 135


@pytest.mark.parametrize("sending", [False, True])
def test_a_process_that_stands_is_slow_for_minutes(sending: bool) -> None:
    """SIGSTOP, a starved worker: its kernel acknowledges all."""
    watch = Watch()
    when, why = watch.dies(
        lambda now: Signs(sent=now % 9, sending=sending, waiting=now, heard=now, kernel=True),
        within=400,
    )
    assert STALLED in why
    assert 300 <= when <= 310


def test_nobody_is_blamed_for_a_silence_that_nobody_listens_to() -> None:
    """Our own FIFO is full: we do not read, so the peer may not be able to say anything."""
    Watch().until(5000, lambda now: Signs(sent=now % 9, waiting=None, heard=now, kernel=True))


def test_bytes_that_lie_unread_are_a_sign() -> None:
    """Whoever waits for much of a long frame is not woken by little of it."""
    Watch().until(5000, lambda now: Signs(sent=now % 9, waiting=now, heard=1.0, kernel=True))


def test_a_route_without_a_kernel() -> None:
    when, why = Watch().dies(lambda now: Signs(sent=now % 9, waiting=now), within=400)
    assert why.startswith("the peer has said nothing for 300 s")
    assert 300 <= when <= 310


def test_the_old_wire_has_no_words_and_is_judged_by_the_kernel_alone() -> None:
    watch = Watch(ping=None, silence=math.inf)
    watch.until(10_000, lambda now: Signs(sent=now, waiting=now, heard=now, kernel=True))
    assert watch.pings == []
    _, why = Watch(ping=None, silence=math.inf).dies(
        lambda now: Signs(sent=now, kernel=True, answered=now, outstanding=1, retransmits=6),
        within=100,
    )
    assert DEAD in why


def test_where_we_stood_still_the_peer_gets_the_time_again() -> None:
    """Stopped for an hour; what came meanwhile lies unread, or its sender gave up waiting."""
    watch = Watch()
    alive = Signs(sent=1.0, waiting=1.0, heard=1.0, kernel=True)
    watch.until(100, lambda _: alive)
    silent = Signs(
        sent=3600,
        waiting=3600,
        heard=3600,
        kernel=True,
        answered=3600,
        outstanding=1,
        retransmits=6,
    )
    watch.now = watch.liveness.get_timer() + 3600
    watch.liveness.handle_timer(watch.now, silent)
    began = watch.now
    with pytest.raises(PeerSilent, match=DEAD):
        watch.until(10_000, lambda _: silent)
    assert watch.now - began == 15


def test_a_starved_end_never_blames_its_peer() -> None:
    """Every wake-up of ours is late by more than the period: we know nothing of anybody."""
    watch = Watch()
    silent = Signs(
        sent=99, waiting=999, heard=999, kernel=True, answered=999, outstanding=1, retransmits=6
    )
    watch.until(10_000, lambda _: silent, late=11.0)


def test_an_impatient_pair_says_ping_more_often() -> None:
    """PUNCH_STALL_TIMEOUT=9 on both: three PINGs fit into it."""
    timing = dataclasses.replace(TIMING, silence=9.0)
    liveness = Liveness(timing, 0.0, ping=timing.ping)
    assert liveness.get_timer() == 3.0
    assert liveness.handle_timer(3.0, Signs(sent=3.0, waiting=1.0, heard=1.0, kernel=True))


@given(
    st.lists(
        st.builds(
            Signs,
            sent=st.floats(0, 500),
            sending=st.booleans(),
            waiting=st.none() | st.floats(0, 500),
            heard=st.floats(0, 500) | st.just(math.inf),
            kernel=st.booleans(),
            answered=st.floats(0, 500),
            outstanding=st.integers(0, 3),
            retransmits=st.integers(0, 3),
            probes=st.integers(0, 4),
        ),
        max_size=40,
    ),
    st.floats(0, 40),
)
def test_it_always_sleeps_and_never_for_long(seen: list[Signs], late: float) -> None:
    now = 0.0
    liveness = Liveness(TIMING, now, ping=TIMING.ping)
    for signs in seen:
        due = liveness.get_timer()
        assert 0.05 <= due - now <= 15.0
        now = due + late
        try:
            liveness.handle_timer(now, signs)
        except PeerSilent:
            return
