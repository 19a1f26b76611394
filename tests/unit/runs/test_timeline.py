"""Events of several machines in one order, whatever their clocks say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.node.protocol import Clock
from punchlib.runs import timeline
from punchlib.runs.timeline import Moment

SECONDS = st.floats(0, 1000)


@given(SECONDS, SECONDS, SECONDS, st.floats(-1e6, 1e6))
def test_effect_comes_after_cause(way: float, work: float, back: float, off: float) -> None:
    sent = 1000.0
    got = sent + way + work + back
    clock = Clock(sent + way + off, sent + way + work + off)
    ahead = timeline.ahead(clock, sent, got)
    slack = 1e-6
    assert sent - slack <= clock.received - ahead
    assert clock.answered - ahead <= got + slack
    # And no further than that asks for.
    assert abs(ahead) <= abs(off) + slack


def test_clocks_that_agree_are_left_alone() -> None:
    assert timeline.ahead(Clock(10.1, 11.0), 10.0, 11.2) == 0.0
    assert timeline.ahead(None, 10.0, 11.2) == 0.0


@pytest.mark.parametrize(
    "event",
    [{}, {"time": "x", "event": "e"}, {"time": 1.0}, {"time": 1.0, "event": "e", "attributes": 3}],
)
def test_what_is_no_event_is_left_out(event: dict[str, Any]) -> None:
    good = {"time": 12.0, "event": "e", "node": "n", "attributes": {"a": 1}}
    assert timeline.moments([event, good], 10.0, 1.0) == [Moment(1.0, "n", "e", {"a": 1})]


def test_half_a_log_can_be_read() -> None:
    moments = [Moment(2.0, "b", "y", {"punch.bytes": 3}), Moment(1.0, "", "x")]
    lines = [json.dumps(m.to_json()) for m in moments]
    newer = json.dumps({"v": 9, "at": 3.0, "node": "", "event": "z", "more": []})
    found = timeline.read([*lines, newer, "[]", lines[0][:20]])
    assert found == [moments[1], moments[0], Moment(3.0, "", "z")]
    assert found[1].number("punch.bytes") == 3.0
    assert found[1].number("event") == 0.0
    assert found[1].text("punch.bytes") == "3"
