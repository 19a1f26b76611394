"""The event, its result, and the result inside of a failed invocation."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.errors import JobFailed, UsageError
from punchlib.node.protocol import (
    Ended,
    Event,
    Result,
    ScriptResult,
    ScriptsFailed,
    Task,
    parse_error,
)
from punchlib.runtime import state
from punchlib.runtime.markers import Marker

texts = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]))
names = texts.filter(
    lambda n: n and "/" not in n and not n.startswith(".") and len(n.encode()) <= 200
)


@given(
    st.lists(st.tuples(names, names, st.lists(texts)), min_size=1),
    names,
    st.sampled_from(["runner", "handler"]),
    st.sampled_from([0.0, 0.5, 900.0]),
    st.sampled_from([0.0, 20.0]),
)
def test_an_event_survives_the_way(
    tasks: list[tuple[str, str, list[str]]], job: str, commit: str, timeout: float, lease: float
) -> None:
    told = tuple(Task(i, f, tuple(a)) for i, f, a in tasks)
    event = Event(told, job, "ab" * 32, commit, timeout, lease)
    assert Event.from_json(json.loads(json.dumps(event.to_json()))) == event


def test_the_singular_form() -> None:
    event = Event.from_json({"id": "a", "folder_id": "f"})
    assert event.tasks == (Task("a", "f"),)
    assert (event.job_id, event.commit) == ("", "handler")


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "text",
        {},
        {"ids": []},
        {"ids": [], "folder_ids": []},
        {"ids": ["a"], "folder_ids": []},
        {"ids": ["a"], "folder_ids": ["f", "g"]},
        {"ids": "a", "folder_ids": "f"},
        {"ids": [1], "folder_ids": ["f"]},
        {"ids": [""], "folder_ids": ["f"]},
        {"ids": ["a\0"], "folder_ids": ["f"]},
        {"id": "a"},
        {"ids": ["a"], "folder_ids": ["f"], "args": [["x"], ["y"]]},
        {"ids": ["a"], "folder_ids": ["f"], "args": ["x"]},
        {"ids": ["a"], "folder_ids": ["f"], "job_id": 3},
        {"ids": ["a"], "folder_ids": ["f"], "commit": "nobody"},
        {"ids": ["a"], "folder_ids": ["f"], "timeout": "soon"},
        {"ids": ["a"], "folder_ids": ["f"], "lease": -1},
        {"ids": ["a"], "folder_ids": ["f"], "lease": float("nan")},
        {"ids": ["a"], "folder_ids": ["f"], "lease": [20]},
    ],
)
def test_what_is_no_event(data: object) -> None:
    with pytest.raises(UsageError):
        Event.from_json(data)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_garbage_is_an_error_of_ours(data: object) -> None:
    with pytest.raises(UsageError):
        Event.from_json(data)
    with pytest.raises(JobFailed):
        Result.from_json(data)


def test_the_key_is_not_shown() -> None:
    assert "ab" * 32 not in repr(Event((Task("a", "f"),), "job", "ab" * 32))


FAILED = ScriptResult(
    "a",
    "f",
    3,
    812,
    stderr_tail="no luck\n",
    failures=(Marker("pashlib recv", "the peer is dead\nat byte 7"),),
)


def test_a_failed_invocation_carries_the_result() -> None:
    result = Result((ScriptResult("b", "f", 0, 5), FAILED), cold=True)
    error = ScriptsFailed(result)
    # What Lambda makes of an exception.
    payload = {"errorType": "ScriptsFailed", "errorMessage": str(error), "stackTrace": []}
    assert parse_error(payload) == result
    assert str(error).splitlines()[0] == "script a failed: pashlib recv: the peer is dead"


def test_other_failures_carry_none() -> None:
    assert parse_error({"errorType": "Runtime.ExitError", "errorMessage": "exit status 1"}) is None
    with pytest.raises(JobFailed):
        parse_error({"errorType": "ScriptsFailed", "errorMessage": "cut off"})


def test_another_version_is_named() -> None:
    with pytest.raises(JobFailed, match="version 2 of the result, we speak 1"):
        Result.from_json({"v": 2, "scripts": []})


@pytest.mark.parametrize(
    ("result", "ok", "cause"),
    [
        (ScriptResult("a", "f", 0, 1), True, ""),
        (ScriptResult("a", "f", 3, 1), False, "its script exited 3"),
        (ScriptResult("a", "f", 137, 1), False, "its script ended with status 137 (SIGKILL)"),
        (ScriptResult("a", "f", 1, 1, note="out of time"), False, "out of time"),
        (FAILED, False, "pashlib recv: the peer is dead"),
        (
            # What was told to stop is not the cause.
            ScriptResult(
                "a",
                "f",
                137,
                1,
                failures=(
                    Marker("s3-put", "ended by SIGTERM", state.STOPPED),
                    Marker("wait", "stage 1 was killed by SIGKILL: sort"),
                ),
            ),
            False,
            "wait: stage 1 was killed by SIGKILL: sort",
        ),
        (
            ScriptResult("a", "f", 0, 1, failures=(Marker("x", "broke"),)),
            False,
            "x: broke",
        ),
    ],
)
def test_how_a_script_ended(result: ScriptResult, ok: bool, cause: str) -> None:
    assert (result.ok, result.cause) == (ok, cause)


@pytest.mark.parametrize(
    ("facts", "ended"),
    [
        ({"returncode": 0}, Ended.OK),
        ({"returncode": 3}, Ended.FAILED),
        ({"returncode": 0, "failures": [{"component": "x", "reason": "broke"}]}, Ended.FAILED),
        ({"returncode": 143, "note": "the handler was stopped"}, Ended.FAILED),
    ],
)
def test_a_node_of_an_older_release_says_less(facts: dict[str, object], ended: Ended) -> None:
    script = {"id": "a", "folder_id": "f", "duration_ms": 1, **facts}
    (read,) = Result.from_json({"v": 1, "cold": False, "scripts": [script]}).scripts
    assert read.ended is ended
    assert all(failure.kind == state.OWN for failure in read.failures)


@pytest.mark.parametrize("ended", Ended)
def test_how_it_ended_comes_back(ended: Ended) -> None:
    marker = Marker("pashlib k recv", "why\nmore", state.REPORTED, "worker1")
    result = Result((ScriptResult("a", "f", 1, 1, failures=(marker,), ended=ended),))
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result
