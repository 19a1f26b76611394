"""What users run, with the engine and without: a stream arrives whole, or both ends say why not."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from pathlib import Path

import pytest

from punchlib.runtime import state
from tests.support.pashlib_rig import FACTOR, World, pair
from tests.support.stream_rig import MIB, SIZES, Rig, background, digest, payload


def test_every_size(tmp_path: Path, world: World, mode: str, security: str) -> None:
    """All at once in one process at each end, which costs no stream a byte."""
    rigs = [Rig(tmp_path, payload(size, size)) for size in SIZES]
    with contextlib.ExitStack() as stack:
        for rig in rigs:
            stack.enter_context(rig.stages())
        paths = [(rig.source, rig.sink) for rig in rigs]
        with pair(world, mode, tmp_path, paths, PUNCH_SECURITY=security) as both:
            both.assert_success()
    for rig in rigs:
        assert digest(rig.got) == digest(rig.data)
        assert rig.fed == len(rig.data)


@pytest.mark.parametrize("size", [0, MIB + 1])
def test_one_stream(tmp_path: Path, world: World, mode: str, security: str, size: int) -> None:
    rig = Rig(tmp_path, payload(size))
    with (
        rig.stages(),
        pair(world, mode, tmp_path, [(rig.source, rig.sink)], PUNCH_SECURITY=security) as both,
    ):
        both.assert_success()
        for end in (both.send, both.recv):
            assert any("connected route=" in line for line in end.said), both
    assert digest(rig.got) == digest(rig.data)


def test_files_and_devices(tmp_path: Path, world: World, mode: str, security: str) -> None:
    data = payload(3 * MIB + 7)
    source, sink = tmp_path / "source", tmp_path / "sink"
    source.write_bytes(data)
    sink.write_bytes(b"longer than nothing" * 1_000_000)
    paths = [(str(source), str(sink)), ("/dev/null", "/dev/null")]
    with pair(world, mode, tmp_path, paths, PUNCH_SECURITY=security) as both:
        both.assert_success()
    assert digest(sink.read_bytes()) == digest(data)


@pytest.mark.parametrize("most", [0, 100_000])
def test_a_reader_that_leaves_stops_the_first_stage(
    tmp_path: Path, world: World, mode: str, security: str, most: int
) -> None:
    """`head` on another machine: both ends exit 0, and who feeds the stream gets SIGPIPE."""
    rig = Rig(tmp_path, b"", drain_most=most)
    with pair(world, mode, tmp_path, [(rig.source, rig.sink)], PUNCH_SECURITY=security) as both:
        feeder = subprocess.Popen(["sh", "-c", f"exec yes > '{rig.source}'"])
        with background(rig.drain, rig.release):
            both.assert_success()
        assert feeder.wait(10) == -signal.SIGPIPE
    assert rig.got == (b"y\n" * most)[:most]


def test_a_reader_that_leaves_does_not_disturb_the_siblings(
    tmp_path: Path, world: World, mode: str, security: str
) -> None:
    leaves = Rig(tmp_path, payload(20 * MIB), drain_most=1000)
    rigs = [leaves, *(Rig(tmp_path, payload(300_000, seed)) for seed in range(1, 8))]
    with contextlib.ExitStack() as stack:
        for rig in rigs:
            stack.enter_context(rig.stages())
        paths = [(rig.source, rig.sink) for rig in rigs]
        with pair(world, mode, tmp_path, paths, PUNCH_SECURITY=security) as both:
            both.assert_success()
    assert leaves.got == leaves.data[:1000]
    assert leaves.fed < len(leaves.data)
    for rig in rigs[1:]:
        assert digest(rig.got) == digest(rig.data)


def test_a_broken_stream_does_not_break_its_siblings(
    tmp_path: Path, world: World, mode: str, security: str
) -> None:
    """A full device at the end of one: the others are whole, and the exit code tells of the one."""
    broken = Rig(tmp_path, payload(MIB))
    slow = Rig(tmp_path, payload(20 * MIB))
    with (
        background(broken.feed, broken.release),
        background(slow.drain, slow.release),
        pair(
            world,
            mode,
            tmp_path,
            [(broken.source, "/dev/full"), (slow.source, slow.sink)],
            PUNCH_SECURITY=security,
        ) as both,
    ):
        both.send.await_line("No space left on device")
        # The sibling begins only now. A node that has failed can promise its bytes, and no more.
        with background(slow.feed, slow.release):
            assert both.codes() == (6, 6), both
    assert digest(slow.got) == digest(slow.data)


def test_the_first_cause_travels(tmp_path: Path, world: World, mode: str, security: str) -> None:
    """Through three machines: the last one names the stage that died on the first."""
    first, second = Rig(tmp_path, payload(300_000)), Rig(tmp_path, b"")
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    cause = "sort: killed by signal 9\x1b[31m"
    shown = "sort: killed by signal 9\\x1b[31m"
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(
            pair(
                world,
                mode,
                tmp_path / "first",
                [(first.source, first.sink)],
                PUNCH_SECURITY=security,
            )
        )
        # The second machine is where the first stream ends and the second begins.
        two = stack.enter_context(
            pair(
                world,
                mode,
                tmp_path / "second",
                [(second.source, second.sink)],
                sender={"PUNCH_STATE_DIR": str(one.recv.folder / "state")},
                PUNCH_SECURITY=security,
            )
        )
        stage = subprocess.Popen(["sh", "-c", f"exec cat '{first.sink}' > '{second.source}'"])
        fail(one.send.folder / "state", *cause.split(": "))
        with background(first.feed, first.release), background(second.drain, second.release):
            assert one.codes() == (6, 6), one
            assert two.codes() == (6, 6), two
        assert stage.wait(10) == 0
    for end in (one.recv, two.send, two.recv):
        assert any(shown in line for line in end.said), end
    assert shown in one.recv.failures[0]
    assert shown in two.recv.failures[0]
    assert digest(second.got) == digest(first.data)


def fail(folder: Path, component: str, reason: str) -> None:
    """Leaves the marker of a stage that died."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUNCH_STATE_DIR", str(folder))
        state.mark_failed(component, reason)


@pytest.mark.parametrize("source", ["empty", "full"])
def test_a_full_device(tmp_path: Path, world: World, mode: str, security: str, source: str) -> None:
    """Its name reaches both ends; nothing to write is nothing that could fail."""
    rig = Rig(tmp_path, payload(MIB if source == "full" else 0))
    with (
        background(rig.feed, rig.release),
        pair(world, mode, tmp_path, [(rig.source, "/dev/full")], PUNCH_SECURITY=security) as both,
    ):
        if source == "empty":
            both.assert_success()
            return
        assert both.codes() == (6, 6), both
    for end in (both.send, both.recv):
        assert any("/dev/full: No space left on device" in line for line in end.said), both
        assert "No space left on device" in end.failures[0]
    assert rig.fed < len(rig.data) or both.send.failures


def test_a_full_disk(tmp_path: Path, world: World, mode: str, security: str) -> None:
    """A file on a file system of 64 KiB, which only the receiver sees: what fits is there."""
    rig = Rig(tmp_path, payload(MIB))
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=64k none {disk}; : > {disk}/sink; "$@"; code=$?'
    with (
        background(rig.feed, rig.release),
        pair(
            world,
            mode,
            tmp_path,
            [(rig.source, f"{disk}/sink")],
            receiver_prefix=["unshare", "-Urm", "sh", "-c", f"{mount}; exit $code", "sh"],
            PUNCH_SECURITY=security,
        ) as both,
    ):
        assert both.codes() == (6, 6), both
    for end in (both.send, both.recv):
        assert any("No space left on device" in line for line in end.said), both
    assert "at byte" in both.recv.said[-1]
    assert not any(disk.iterdir())


REFUSED = {
    "not signed with this run's job key": (
        {"PUNCH_JOB_KEY": "11" * 32},
        {"PUNCH_JOB_KEY": "22" * 32},
    ),
    # Without a certificate: that must not become a stream without encryption.
    "one end asks for encryption": (
        {"PUNCH_SECURITY": "authenticated"},
        {"PUNCH_SECURITY": "encrypted"},
    ),
}


@pytest.mark.slow
def test_who_does_not_belong_together(tmp_path: Path, world: World, mode: str) -> None:
    """Nobody gets a byte. Who has not seen the other's record before it was taken back says so."""
    with contextlib.ExitStack() as stack:
        running = []
        for number, (why, (sender, receiver)) in enumerate(REFUSED.items()):
            folder = tmp_path / str(number)
            folder.mkdir()
            rig = Rig(folder, payload(1000))
            stack.enter_context(rig.stages())
            both = stack.enter_context(
                pair(
                    world,
                    mode,
                    folder,
                    [(rig.source, rig.sink)],
                    sender=sender,
                    receiver=receiver,
                    PUNCH_TIMEOUT=str(5 * FACTOR),
                )
            )
            running.append((rig, both, why))
        for rig, both, why in running:
            codes = both.codes()
            assert set(codes) in ({5}, {3, 5}), both
            for code, end in zip(codes, (both.send, both.recv), strict=True):
                assert any((why if code == 5 else "did not come") in line for line in end.said)
                assert end.failures
            assert not rig.got


def test_one_runs_job_key(tmp_path: Path, world: World, mode: str, security: str) -> None:
    rig = Rig(tmp_path, payload(MIB))
    with (
        rig.stages(),
        pair(
            world,
            mode,
            tmp_path,
            [(rig.source, rig.sink)],
            PUNCH_SECURITY=security,
            PUNCH_JOB_KEY="33" * 32,
            PASH_JOB_ID="job",
        ) as both,
    ):
        both.assert_success()
    assert digest(rig.got) == digest(rig.data)
