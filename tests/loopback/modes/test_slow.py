"""Slowness is never taken for death, with the engine and without."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support.pashlib_rig import MODES, PATIENCE, SECURITIES, STALL, Gated, World, pair
from tests.support.stream_rig import background, digest, payload

MIB = 1 << 20
#: Longer than the silence that means death.
LONG = STALL + 2.0
#: And than what means that a machine is dead, with the PING that shows it.
STOPPED = 40.0


@pytest.mark.slow
def test_longer_than_the_silence(tmp_path: Path, world: World) -> None:
    """A FIFO that stays full, a source that says nothing, stages that come late.

    All modes at once: it is nothing but waiting.
    """
    with ExitStack() as stack:
        running = []
        for mode in MODES:
            for security in SECURITIES:
                folder = tmp_path / f"{mode}-{security}"
                folder.mkdir()
                stuck = Gated(folder, payload(64 * MIB), pause_at=1)
                quiet = Gated(folder, b"one\ntwo\n")
                late = Gated(folder, payload(MIB), pause_at=MIB)
                rigs = (stuck, quiet, late)
                paths = [(rig.source, rig.sink) for rig in rigs]
                both = stack.enter_context(
                    pair(world, mode, folder, paths, PUNCH_SECURITY=security)
                )
                stack.enter_context(stuck.stages())
                running.append((both, rigs))
        writers = []
        for both, (stuck, quiet, _) in running:
            assert stuck.reached.wait(PATIENCE), both
            writers.append(os.open(quiet.source, os.O_WRONLY))
            os.write(writers[-1], b"one\n")
        time.sleep(LONG)
        for (both, (stuck, quiet, late)), writer in zip(running, writers, strict=True):
            assert not both.send.ended_at, both
            assert not both.recv.ended_at, both
            os.write(writer, b"two\n")
            os.close(writer)
            stack.enter_context(background(quiet.drain, quiet.release))
            stack.enter_context(late.stages())
            for rig in (stuck, quiet, late):
                rig.go_on.set()
        for both, _ in running:
            both.assert_success()
    for _, rigs in running:
        for rig in rigs:
            assert digest(rig.got) == digest(rig.data)


def go_on(pid: int) -> None:
    """Also what a failed test has left standing."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


@pytest.mark.slow
def test_a_process_that_stands_for_long(tmp_path: Path, world: World) -> None:
    """SIGSTOP of what moves the bytes, for longer than any machine is silent; then SIGCONT.

    All modes and both ends at once: it is nothing but waiting.
    """
    with ExitStack() as stack:
        running = []
        for mode in MODES:
            for security in SECURITIES:
                for victim in ("send", "recv"):
                    folder = tmp_path / f"{mode}-{security}-{victim}"
                    folder.mkdir()
                    rig = Gated(folder, payload(64 * MIB), pause_at=MIB)
                    paths = [(rig.source, rig.sink)]
                    both = stack.enter_context(
                        pair(
                            world,
                            mode,
                            folder,
                            paths,
                            PUNCH_SECURITY=security,
                            PUNCH_STALL_TIMEOUT="300",
                        )
                    )
                    stack.enter_context(rig.stages())
                    running.append((both, rig, both.send if victim == "send" else both.recv))
        stopped = []
        for both, rig, slow in running:
            assert rig.reached.wait(PATIENCE), both
            stopped.append(slow.worker())
            os.kill(stopped[-1], signal.SIGSTOP)
            stack.callback(go_on, stopped[-1])
            rig.go_on.set()
        time.sleep(STOPPED)
        for (both, _, _), pid in zip(running, stopped, strict=True):
            assert not both.send.ended_at, both
            assert not both.recv.ended_at, both
            go_on(pid)
        for both, rig, _ in running:
            both.assert_success()
            assert digest(rig.got) == digest(rig.data)
