"""A signal is never lost, wherever Python is when it comes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from pathlib import Path

import pytest

from punchlib.cli.interrupt import Interrupted, interruptible
from punchlib.errors import PunchError
from punchlib.runtime import state, tool_edge
from punchlib.signals import AGAIN


class Finalized:
    """Python drops an exception that is raised in here."""

    def __init__(self, signum: int) -> None:
        self.signum = signum

    def __del__(self) -> None:
        signal.raise_signal(self.signum)
        for _ in range(1000):  # the handler runs between two of these
            pass


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["in a finalizer", "in our code"])
def test_it_is_raised(signum: int, where: str) -> None:
    before = signal.getsignal(signum), signal.getsignal(signal.SIGALRM)
    went_on = False
    with pytest.raises(Interrupted) as caught, interruptible():
        if where == "in a finalizer":
            Finalized(signum)
            went_on = True
            time.sleep(30)
        signal.raise_signal(signum)
        time.sleep(30)
    assert caught.value.exit_code == 128 + signum
    assert went_on is (where == "in a finalizer")
    assert (signal.getsignal(signum), signal.getsignal(signal.SIGALRM)) == before


def test_it_is_not_lost_where_somebody_swallows_it() -> None:
    """As code in C does that clears what it does not expect."""
    swallowed = 0
    with pytest.raises(Interrupted) as caught, interruptible():
        while True:
            try:
                if not swallowed:
                    signal.raise_signal(signal.SIGINT)
                time.sleep(30)
            except Interrupted:
                swallowed += 1
                if swallowed == 3:
                    raise
    assert caught.value.exit_code == 130


def test_a_callback_of_an_event_loop_does_not_swallow_it() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        loop.call_later(0.01, signal.raise_signal, signal.SIGTERM)
        await asyncio.sleep(30)

    started = time.monotonic()
    with pytest.raises(Interrupted), interruptible():
        asyncio.run(main())
    assert time.monotonic() - started < 10


def test_it_is_not_raised_again_while_it_is_handled() -> None:
    """Nor where what handles it handles another one meanwhile."""
    done: list[bool] = []
    with pytest.raises(Interrupted), interruptible():
        try:
            with contextlib.suppress(ZeroDivisionError):
                signal.raise_signal(signal.SIGTERM)
        finally:
            time.sleep(3 * AGAIN)
            try:
                _ = 1 / len(done)
            except ZeroDivisionError:
                time.sleep(3 * AGAIN)
            done.append(True)
    assert done


def test_an_exception_that_is_its_own_cause_is_no_trap() -> None:
    """`raise translate(error) or error from error`, where there is nothing to translate."""
    error = TypeError("made of it in C")
    error.__cause__ = error
    with pytest.raises(Interrupted), interruptible():
        try:
            with contextlib.suppress(Interrupted):
                signal.raise_signal(signal.SIGTERM)
            raise error
        except TypeError:
            time.sleep(30)  # nothing says that this is its clean-up


def test_a_tool_that_fails_of_it_says_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUNCH_STATE_DIR", str(tmp_path / "state"))
    end = state.end

    def slowly(component: str, status: int) -> None:
        time.sleep(3 * AGAIN)
        end(component, status)

    monkeypatch.setattr(state, "end", slowly)

    def body() -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        except tool_edge.Terminated:
            raise PunchError("what it was doing has failed") from None
        return 0

    assert tool_edge.run("tool", body) == 1
    assert list((tmp_path / "state/running").iterdir()) == []


def test_it_is_not_taken_for_something_else() -> None:
    """Code in C may make an exception of its own of one that it does not expect."""
    with pytest.raises(Interrupted) as caught, interruptible():
        try:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(30)
        except Interrupted:
            raise TypeError("expected a message argument") from None
    assert caught.value.exit_code == 143
    with pytest.raises(TypeError), interruptible():
        raise TypeError("no signal has come")


def test_a_second_one_does_not_tear_the_orderly_end() -> None:
    ended = False
    with pytest.raises(Interrupted), interruptible():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.05)
            ended = True
    assert ended


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_tool_ends_with_it(
    signum: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PUNCH_STATE_DIR", str(tmp_path / "state"))

    def body() -> int:
        Finalized(signum)
        time.sleep(30)
        return 0

    assert tool_edge.run("tool", body) == 128 + signum
    assert f"tool: ended by {signal.Signals(signum).name}" in capfd.readouterr().err
