"""The failures of a run.json: the first cause first, whatever is missing."""

from __future__ import annotations

from punchlib.runs import failures
from tests.support.recorded_runs import load


def node(id_: str, ended: float, **facts: object) -> dict[str, object]:
    return {"id": id_, "ok": False, "returncode": 1, "how": "failed", "ended_s": ended, **facts}


PASHLIB = {"component": "pashlib k recv", "kind": "reported", "reason": "r"}
STAGE = {"component": "wait", "kind": "own", "reason": "r"}


def test_a_real_one() -> None:
    found = failures.of(load("broken")[1])
    assert found.first and found.first.id == "worker1"
    assert "killed by SIGKILL" in found.first.cause
    assert "no <space> left" in found.first.stderr
    assert [(f.id, f.origin) for f in found.others] == [("merger", "worker1")]
    assert found.next_step == "no output was written; mend the cause and run the job again"


def test_one_that_went_well_has_none() -> None:
    assert not failures.of(load("sort")[1])


def test_the_order_is_that_of_the_error() -> None:
    nodes = [
        node("repeats", 1, failures=[PASHLIB]),
        node("broken stream", 2, failures=[{**PASHLIB, "kind": "own"}]),
        node("stage", 3, failures=[STAGE]),
        node("lost", 4, how="lost", returncode=None),
        node("cancelled", 0, how="cancelled"),
        node("stopped", 0, stopped=True),
    ]
    found = failures.of({"nodes": nodes})
    assert found.first is not None
    order = [found.first.id, *(f.id for f in found.others)]
    assert order == ["lost", "stage", "broken stream", "repeats", "cancelled"]
    assert [f.id for f in found.stopped] == ["stopped"]


def test_an_error_without_a_node() -> None:
    found = failures.of({"error": {"message": "S3 refuses\nmore", "next_step": "wait"}})
    assert (found.message, found.detail, found.next_step) == ("S3 refuses", "more", "wait")
    assert found


def test_what_is_no_failure_is_left_out() -> None:
    assert not failures.of({"nodes": [1, None, {"ok": "no"}], "error": "text"})
