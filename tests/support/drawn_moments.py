"""Events of a run as no node would tell them: for those who must make something of any."""

from __future__ import annotations

from hypothesis import strategies as st

from punchlib.runs.timeline import Moment

NODES = ["splitter", "worker1", "worker2", "mérgèr \"'<&>", "\x1b[31m"]
EVENTS = [
    *("run.started", "run.step", "run.ended", "run.node_started", "run.node_ended"),
    *("run.node_failed", "run.from_the_future", "node.invoked", "script.fetched"),
    *("script.started", "script.ended", "node.ended", "stage.ended", "events.dropped"),
    *("connection.started", "connection.registered", "connection.connected"),
    *("connection.failed", "stream.first_byte", "stream.last_byte", "stream.acknowledged"),
    *("download.ended", "upload.ended"),
]
values = st.one_of(st.text(max_size=5), st.integers(), st.floats(), st.booleans(), st.none())
attributes = st.fixed_dictionaries(
    {},
    optional={
        "punch.key": st.sampled_from(["k1", "k2", "k3", "k4"]),
        "punch.direction": st.sampled_from(["send", "recv"]),
        "punch.place": st.sampled_from(["ec2", "lambda"]),
        "faas.coldstart": values,
        "punch.bytes": values,
        "punch.text": values,
        "error.message": values,
        "aws.s3.key": values,
        "punch.ended": st.sampled_from(["ok", "failed"]),
    },
)
moments = st.builds(
    Moment,
    at=st.one_of(st.floats(-1, 20), st.sampled_from([float("nan"), float("inf"), 1e9, 3.0])),
    node=st.one_of(st.just(""), st.sampled_from(NODES)),
    event=st.sampled_from(EVENTS),
    attributes=attributes,
)
