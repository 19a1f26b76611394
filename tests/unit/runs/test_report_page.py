"""The page of a run as text: whole, escaped, and without anything from elsewhere.

How it looks in a browser is tested in tests/loopback/runs/test_report_page.py.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.runs.critical_path import path_of
from punchlib.runs.report_page import render, seconds, short, size, ticks
from punchlib.runs.story import tell
from punchlib.runs.timeline import Moment
from punchlib.runs.trace import trace
from tests.support.drawn_moments import moments
from tests.support.recorded_runs import RUNS, load

EVIL = "<script>alert(1)</script>\"'&\x1b[2J\u202e\x00é</style></svg>"
_VOID = {"meta", "link", "br"}

#: What a run.json may say of its price (punchlib.runs.cost).
COST = {
    "total": 0.000173,
    "detour": 0.0021,
    "prices_of": "2026-11-01",
    "lines": [
        {"what": "Lambda", "quantity": 3.72, "unit": "GB s", "price": 1.3e-5, "dollars": 5e-5}
    ],
}


class Checker(HTMLParser):
    """Every element is closed where it should be; what is there is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        self.ids += [value or "" for name, value in attrs if name == "id"]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    assert "script" not in checker.seen
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", page)
    assert not re.search(r"""(src|href)=["'](?!data:|#)|url\((?!#)|@import""", page)
    return checker


@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_run(name: str) -> None:
    told, run = load(name)
    story = tell(told, run)
    page = render("20260101T000000Z-aa", story, run | {"cost": COST})
    seen = check(page).seen
    assert seen["desc"] == 1
    assert page.count('class="node"') == len(story.nodes)
    assert page.count('class="line stream"') == 2 * len(story.streams)
    assert all(node in page for node in story.nodes)
    assert "$0.00017" in page
    assert ("What failed" in page) == (name == "broken")


def test_the_first_cause_comes_first_and_its_text_is_escaped() -> None:
    told, run = load("broken")
    page = render("x", tell(told, run), run)
    first = page.split('class="failure first"')[1]
    assert re.search(r"<h3>(\w+)", first)[1] == "worker1"  # type: ignore[index]
    assert "no &lt;space&gt; left &amp; " in page
    assert "<space>" not in page


def test_the_critical_path_is_said_and_marked() -> None:
    told, run = load("wide")
    page = render("x", tell(told, run), run)
    assert "30 % of 29.2 s: waiting for word16&#39;s cold start;" in page
    assert "critical path: waiting for word16&#39;s cold start" in page


def test_text_of_a_job_is_only_text() -> None:
    key = {"punch.key": EVIL, "punch.text": EVIL, "punch.route": EVIL, "error.message": EVIL}
    told = [
        Moment(0, "", "run.step", key),
        Moment(1, EVIL, "run.node_started", {"punch.place": EVIL}),
        Moment(1, EVIL, "node.invoked"),
        *(
            Moment(2, node, event, {**key, "punch.direction": way, "aws.s3.key": EVIL})
            for node, way in ((EVIL, "send"), ("other", "recv"))
            for event in ("connection.started", "connection.connected", "connection.failed")
        ),
        Moment(3, EVIL, "download.ended", {"aws.s3.key": EVIL, "punch.bytes": 5}),
    ]
    failed = {"id": EVIL, "ok": False, "cause": EVIL, "how": EVIL, "place": EVIL, "origin": EVIL}
    failed |= {"stderr_tail": EVIL, "failures": [{"component": EVIL, "reason": EVIL}] * 2}
    run: dict[str, Any] = {
        "ok": False,
        "job": EVIL,
        "nodes": [failed, {**failed, "id": "b"}, {**failed, "id": "c", "stopped": True}],
        "error": {"message": EVIL, "next_step": EVIL},
        "outputs": [{"key": EVIL, "bytes": EVIL}],
        "cost": {"total": EVIL, "prices_of": EVIL, "lines": [{"what": EVIL, "unit": EVIL}]},
    }
    page = render(EVIL, tell(told, run), run, [EVIL])
    assert "alert(1)" in page
    check(page)


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
NAMES = [
    "id",
    "ok",
    "place",
    "how",
    "cause",
    "failures",
    "ended_s",
    "key",
    "bytes",
    "what",
    "price",
]
objects = st.lists(st.dictionaries(st.sampled_from(NAMES), values, max_size=6), max_size=3)
FIELDS = ["ok", "job", "began", "elapsed_s", "nodes", "outputs", "error", "cost"]
runs = st.dictionaries(
    st.sampled_from(FIELDS),
    values
    | objects
    | st.dictionaries(st.sampled_from(["total", "lines", "message", "detour"]), values | objects),
)


@given(runs)
def test_any_run_json_gives_a_page(run: dict[str, Any]) -> None:
    check(render("x", tell([], run), run))


@given(st.lists(moments, max_size=40), st.booleans())
def test_any_events_give_a_page_and_a_trace(drawn: list[Moment], known: bool) -> None:
    story = tell(drawn, {"nodes": [{"id": "worker1", "ok": False}]} if known else {})
    check(render("x", story, {}))
    json.dumps(trace(story, path_of(story), "x"), allow_nan=False)


def test_a_run_without_anything() -> None:
    page = render("x", tell([]), {}, ["run.json cannot be read"])
    check(page)
    assert "run.json cannot be read" in page
    assert "no end known" in page


def test_what_is_missing_is_said() -> None:
    told, run = load("sort")
    some = [m for m in told if m.node != "worker1" or m.event.startswith("run.")]
    page = render(
        "x", tell([*some, Moment(3, "merger", "events.dropped", {"punch.count": 7})]), run
    )
    assert "No events came from worker1" in page
    assert "7 events were more" in page
    assert "Of 2 streams only one end is known" in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.00 s"), (9.994, "9.99 s"), (19.36, "19.4 s"), (125, "2 min 05 s")],
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (14999997, "15 MB"), (2.5e12, "2.5 TB")],
)
def test_sizes(value: float, text: str) -> None:
    assert size(value) == text


@given(st.floats(0.001, 1e6))
def test_an_axis_has_few_round_ticks(elapsed: float) -> None:
    found = ticks(elapsed)
    assert 2 <= len(found) <= 11
    assert all(0 <= at <= 100.5 for at, _ in found)


def test_long_names_are_cut() -> None:
    assert short("a\nb" * 20, 5) == "a ba…"
