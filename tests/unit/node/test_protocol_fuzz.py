"""Any JSON as event, result, answer: ours, or one documented error."""

from __future__ import annotations

import json
import math

from hypothesis import example, given
from hypothesis import strategies as st

from punchlib.errors import JobFailed, PunchError, UsageError
from punchlib.jobs.launch import NodeLost, read_answer, read_probe
from punchlib.node import probe as probes
from punchlib.node.probe_event import Probe
from punchlib.node.protocol import Event, Result, parse_error

_SCALAR = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["a", "", "\0", "../x", "a/b", "\ud800", "runner", 10**400, "9" * 5000])
)
_JSON = st.recursive(
    _SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


def like(*names: str) -> st.SearchStrategy[dict[str, object]]:
    """An object with some of these entries, of any kind."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, _JSON))


_NAMES = st.lists(st.text(max_size=3), max_size=3)
_EVENT = st.fixed_dictionaries(
    {"ids": _NAMES | _JSON, "folder_ids": _NAMES | _JSON},
    optional=dict.fromkeys(("args", "job_id", "job_key", "commit"), _JSON),
) | like("id", "folder_id", "ids", "folder_ids", "args")
_SCRIPT = st.fixed_dictionaries(
    {"id": _SCALAR, "folder_id": _SCALAR, "returncode": _SCALAR, "duration_ms": _SCALAR},
    optional={
        "failures": st.lists(like("component", "reason", "kind", "origin") | _JSON, max_size=2),
        "pending": st.lists(_JSON, max_size=2) | _JSON,
        "note": _JSON,
        "stderr_tail": _JSON,
        "ended": _JSON,
    },
)
_RESULT = st.fixed_dictionaries(
    {"v": st.just(1) | _SCALAR, "scripts": st.lists(_SCRIPT | _JSON, max_size=2) | _JSON},
    optional={"cold": _JSON, "ok": _JSON},
)


@given(_EVENT | _JSON)
def test_any_event(data: object) -> None:
    try:
        event = Event.from_json(data)
    except UsageError as error:
        assert error.message
        return
    assert event.tasks
    assert all(task.id and task.folder_id for task in event.tasks)
    assert Event.from_json(json.loads(json.dumps(event.to_json()))) == event


@given(_RESULT | _JSON)
@example({"v": 1, "scripts": [dict.fromkeys(("id", "folder_id", "returncode"), math.inf)]})
def test_any_result(data: object) -> None:
    try:
        result = Result.from_json(data)
    except JobFailed as error:
        assert error.message
        return
    assert [script.cause for script in result.scripts if not script.ok and not script.cause] == []
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result


_DEEP = "[" * 3000


@given(
    like("errorType", "errorMessage")
    | st.builds(
        lambda text: {"errorType": "ScriptsFailed", "errorMessage": f"why\n{text}"},
        (_RESULT | _JSON).map(json.dumps) | st.text() | st.just(_DEEP),
    )
)
def test_any_failed_invocation(payload: dict[str, object]) -> None:
    try:
        parse_error(payload)
    except JobFailed as error:
        assert error.message


@given(
    st.binary()
    | (_RESULT | _JSON | like("errorType", "errorMessage", "error")).map(json.dumps).map(str.encode)
    | st.just(_DEEP.encode())
)
def test_any_answer_of_a_node(text: bytes) -> None:
    try:
        read_answer(text)
    except (NodeLost, JobFailed) as error:
        assert error.message


@given(like("probe", "key", "job_id", "job_key", "count") | _JSON)
def test_any_probe(data: object) -> None:
    try:
        probe = Probe.from_json(data)
    except UsageError as error:
        assert error.message
        return
    if probe is not None:
        assert Probe.from_json(json.loads(json.dumps(probe.to_json()))) == probe


@given(
    st.binary()
    | (_JSON | like("probe", "errorType", "errorMessage", "error", "version", "findings", "v"))
    .map(json.dumps)
    .map(str.encode)
    | st.just(_DEEP.encode())
)
def test_any_answer_to_a_probe(text: bytes) -> None:
    try:
        said = probes.read(read_probe(text))
    except PunchError as error:
        assert error.message and error.next_step
        return
    assert said["version"]
