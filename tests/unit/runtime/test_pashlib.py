"""What pashlib says of a failure, to this node and to the next one."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.config import Config
from punchlib.core.frames import FrameType, Incoming, encode_cause
from punchlib.errors import Cause, StreamBroken, UsageError
from punchlib.net.connection import Connection, Spec
from punchlib.net.connector import Connector
from punchlib.rendezvous.memory import MemoryStore
from punchlib.runtime import markers, pashlib, state
from punchlib.runtime.pashlib import Pashlib, main, marked, parse, say
from punchlib.runtime.verdict_watch import upstream_failure
from punchlib.stopping import doing
from tests.support.stream_rig import Rig, background, run


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUNCH_STATE_DIR", str(tmp_path / "state"))
    state.prepare_folder(state.given())


def test_nobody_can_hear_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `<( … )` of a script that has closed its stderr: there 2 is for reading."""
    reading = os.open(os.devnull, os.O_RDONLY)
    deaf = os.fdopen(reading, "w")
    monkeypatch.setattr(sys, "stderr", deaf)
    say("one line")
    say("another one")
    assert sys.stderr is not deaf
    sys.stderr.close()
    writing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(writing, reading)  # or it could not be closed
    os.close(writing)
    deaf.close()


def test_a_state_folder_that_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PUNCH_STATE_DIR", "/proc/nowhere/at/all")
    assert main(["send*k*0*1*/dev/null"]) == 2
    said = capsys.readouterr().err
    assert "/proc/nowhere" in said and "next: " in said
    assert "Traceback" not in said


def first_failure() -> Cause | None:
    return asyncio.run(upstream_failure())


def reasons() -> list[str]:
    return [marker.reason for marker in markers.of_our_script()]


def test_no_failure_no_reason() -> None:
    assert first_failure() is None


def test_our_own_first_failure_is_named_with_its_component() -> None:
    state.mark_failed("s3-get.py", "there is no object in/1")
    state.mark_failed("pashlib send k", "broken pipe")
    assert first_failure() == Cause("s3-get.py: there is no object in/1")


def test_the_first_cause_travels_unchanged_however_long_the_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUNCH_NODE", "reader")
    state.mark_failed("s3-get.py", "there is no object in/1")
    for node in range(5):
        said = first_failure()
        assert said == Cause("s3-get.py: there is no object in/1", "reader")
        monkeypatch.setenv("PUNCH_NODE", f"node {node}")
        monkeypatch.setenv("PUNCH_STATE_DIR", str(tmp_path / str(node)))
        state.prepare_folder(state.given())
        with pytest.raises(StreamBroken), marked(Spec(f"k{node}", "1", "0", sending=False)):
            Incoming().hear(FrameType.ERROR, encode_cause(said))


PARTS = st.text(st.characters(blacklist_characters="*"), max_size=8)


@given(st.sampled_from(["send", "recv"]), PARTS, PARTS, PARTS, st.text(max_size=20))
def test_an_argument_comes_back_or_is_named(
    verb: str, key: str, me: str, peer: str, fifo: str
) -> None:
    argument = f"{verb}*{key}*{me}*{peer}*{fifo}"
    if all((key, me, peer, fifo)) and me != peer:
        assert parse(argument) == (Spec(key, me, peer, sending=verb == "send"), fifo)
    else:
        with pytest.raises(UsageError) as caught:
            parse(argument)
        assert repr(argument) in caught.value.message


@given(st.text(max_size=40))
def test_any_argument_is_read_or_named(argument: str) -> None:
    try:
        spec, fifo = parse(argument)
    except UsageError as error:
        assert repr(argument) in error.message
        assert error.next_step
    else:
        verb = "send" if spec.sending else "recv"
        assert argument == f"{verb}*{spec.key}*{spec.me}*{spec.peer}*{fifo}"


NAMES = (
    "PASH_STUN_SERVER",
    "PASH_STUN_TIMEOUT_MS",
    "PUNCH_ROUTES",
    "PUNCH_WIRE",
    "PUNCH_SECURITY",
    "PUNCH_TIMEOUT",
    "PUNCH_JOB_KEY",
    "PASH_NO_HOLEPUNCH",
)


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=30)))
def test_any_environment_is_read_or_the_variable_is_named(env: dict[str, str]) -> None:
    try:
        Config.from_env(env)
    except UsageError as error:
        assert any(name in error.message for name in env)
        assert error.next_step


def test_a_signal_during_the_goodbye_does_not_hide_the_failure() -> None:
    with pytest.raises(asyncio.CancelledError), marked(Spec("k", "0", "1", sending=True)):
        try:
            raise StreamBroken("the input is not whole: s3-get: NoSuchKey")
        except StreamBroken:
            raise asyncio.CancelledError  # noqa: B904 (as the loop does)
    assert reasons()[0] == "the input is not whole: s3-get: NoSuchKey"


def test_a_stop_alone_is_a_stop() -> None:
    with (
        pytest.raises(asyncio.CancelledError),
        marked(Spec("k", "0", "1", sending=True)),
        doing(lambda: "waiting for bread"),
    ):
        raise asyncio.CancelledError
    assert reasons()[0] == "stopped, while waiting for bread"


@pytest.mark.parametrize("error", [StreamBroken("gone"), OSError("no descriptor"), RuntimeError()])
def test_whatever_fails_a_recv_lets_its_reader_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It let go only after an error of ours: else the next stage stayed in its open() for ever."""
    monkeypatch.setattr(pashlib, "RELEASE_TIME", 60.0)
    rig = Rig(tmp_path, b"")

    class Failing(Connector):
        async def establish(self, spec: Spec) -> Connection:
            raise error

    async def work() -> int:
        connector = Failing(Config(), MemoryStore())
        runs = Pashlib(Config(), connector).run([parse(f"recv*k*1*0*{rig.sink}")])
        try:
            return await runs
        finally:
            await connector.close()

    with background(rig.drain):
        assert run(work) != 0
    assert reasons()
