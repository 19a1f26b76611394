"""The first cause, among failures that follow from one another."""

from __future__ import annotations

import pytest

from punchlib.jobs.report import Outcome, Report, failure, first_cause
from punchlib.node.protocol import Ended, ScriptResult
from punchlib.runtime import state
from punchlib.runtime.markers import Marker

LOST = {"error": "the worker failed: Runtime.ExitError"}


def node(id_: str, ended: float, **facts: object) -> Outcome:
    return Outcome(id_, "lambda", 0.0, ended, **facts)  # type: ignore[arg-type]


def script(
    returncode: int, *reasons: str, component: str = "pashlib k recv", **facts: object
) -> dict[str, object]:
    kind = str(facts.pop("kind", state.OWN))
    origin = str(facts.pop("origin", ""))
    failures = tuple(Marker(component, r, kind, origin) for r in reasons)
    result = ScriptResult("x", "f", returncode, 1, failures=failures, **facts)  # type: ignore[arg-type]
    return {"script": result}


OK = script(0)
BROKEN = script(6, "the peer is dead or unreachable: nothing heard for 10 s")
REPEATED = script(6, "pashlib j send: the peer is dead", kind=state.REPORTED)
STAGE = script(137, "stage 2 of 3 was killed by SIGKILL: sort", component="wait")
STOPPED = script(143, note="the run was given up", ended=Ended.CANCELLED)


@pytest.mark.parametrize(
    ("earlier", "later", "first"),
    [
        (BROKEN, LOST, "later"),
        (BROKEN, STAGE, "later"),
        (STAGE, LOST, "later"),
        (STOPPED, BROKEN, "later"),
        (REPEATED, BROKEN, "later"),
        (BROKEN, BROKEN, "earlier"),
        (LOST, LOST, "earlier"),
        (OK, REPEATED, "later"),
    ],
)
def test_the_first_cause(earlier: dict[str, object], later: dict[str, object], first: str) -> None:
    outcomes = [node("later", 2.0, **later), node("earlier", 1.0, **earlier)]
    found = first_cause(outcomes)
    assert found is not None
    assert found.id == first


def test_what_a_node_repeats_names_the_one_that_said_it() -> None:
    told = script(6, "wait: sort was killed", kind=state.REPORTED, origin="worker1")
    outcomes = [node("merger", 1.0, **told), node("worker1", 2.0, **STOPPED)]
    error = failure(Report("job", "f", outcomes))
    assert "node worker1 reports: wait: sort was killed" in error.message
    assert outcomes[0].to_json()["origin"] == "worker1"
    assert outcomes[1].to_json()["origin"] == ""


def test_no_failure_has_no_cause() -> None:
    assert first_cause([node("a", 1.0, **OK)]) is None


def test_text_of_a_node_is_escaped() -> None:
    evil = ScriptResult("x", "f", 1, 1, stderr_tail="\x1b[2Jgone\n")
    error = failure(Report("job", "f", [node("a", 1.0, script=evil)]))
    assert "\x1b" not in error.message
    assert r"\x1b[2Jgone" in error.message
