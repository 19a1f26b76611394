"""A stream arrives whole, whatever its size, on every wire and from every kind of source."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from pathlib import Path

import pytest

from punchlib.core.frames import FrameType, Outgoing, State, encode_header
from punchlib.errors import Cause, StreamBroken, UsageError
from punchlib.net.channel import SocketChannel
from punchlib.pump.fifo import FifoReader, FifoWriter
from punchlib.pump.stream import Stats, receive_stream, send_stream
from tests.support.stream_rig import (
    FAST,
    MIB,
    SIZES,
    Rig,
    assert_whole,
    background,
    both,
    channel_pair,
    digest,
    no_tasks_left,
    outcome,
    payload,
    run,
    saying,
    stream,
)

SECURITIES = ("authenticated", "encrypted")


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("size", SIZES)
def test_every_size(tmp_path: Path, security: str, size: int) -> None:
    rig = Rig(tmp_path, payload(size))

    async def work() -> None:
        async with no_tasks_left():
            outcomes = await stream(rig, *await channel_pair(security))
        assert all(isinstance(one, Stats) for one in outcomes), outcomes

    with rig.stages():
        run(work)
    assert digest(rig.got) == digest(rig.data)
    assert rig.fed == size


@pytest.mark.parametrize("security", SECURITIES)
def test_regular_files_at_both_ends(tmp_path: Path, security: str) -> None:
    data = payload(3 * MIB + 7)
    source, sink = tmp_path / "source", tmp_path / "sink"
    source.write_bytes(data)
    sink.write_bytes(b"longer than nothing" * 1_000_000)

    async def work() -> tuple[Stats, Stats]:
        sender, receiver = await channel_pair(security)
        return await both(
            send_stream(sender, FifoReader.open_path(str(source)), timing=FAST),
            receive_stream(receiver, FifoWriter.open_path(str(sink)), timing=FAST),
        )

    sent, received = run(work)
    assert sent.bytes == received.bytes == len(data)
    assert digest(sink.read_bytes()) == digest(data)


def test_dev_null_at_both_ends() -> None:
    async def work() -> tuple[Stats, Stats]:
        sender, receiver = await channel_pair()
        return await both(
            send_stream(sender, FifoReader.open_path("/dev/null"), timing=FAST),
            receive_stream(receiver, FifoWriter.open_path("/dev/null"), timing=FAST),
        )

    assert [one.bytes for one in run(work)] == [0, 0]


def test_a_pinned_descriptor_outlives_its_path(tmp_path: Path) -> None:
    """The engine opens O_PATH in the client's /tmp and passes the descriptor."""
    rig = Rig(tmp_path, payload(100_000))

    async def work() -> None:
        sender, receiver = await channel_pair()
        pins = [os.open(path, os.O_PATH) for path in (rig.source, rig.sink)]
        reader = FifoReader.open_path(f"/proc/self/fd/{pins[0]}", name=rig.source)
        writer = FifoWriter.open_path(f"/proc/self/fd/{pins[1]}", name=rig.sink)
        for pin in pins:
            os.close(pin)
        assert (reader.name, writer.name) == (rig.source, rig.sink)
        await both(
            send_stream(sender, reader, timing=FAST), receive_stream(receiver, writer, timing=FAST)
        )

    with rig.stages():
        run(work)
    assert digest(rig.got) == digest(rig.data)


def test_a_missing_path_says_mkfifo_and_makes_nothing(tmp_path: Path) -> None:
    for end in (FifoReader, FifoWriter):
        path = tmp_path / "#fifo 1"
        with pytest.raises(UsageError, match="does not exist") as caught:
            end.open_path(str(path))
        assert f"mkfifo '{path}'" in caught.value.next_step
        assert not path.exists()
    with pytest.raises(UsageError, match="directory"):
        FifoReader.open_path(str(tmp_path))
    with pytest.raises(UsageError, match="directory"):
        FifoWriter.open_path(str(tmp_path))


def test_a_frame_that_trickles_in_is_no_silence(tmp_path: Path) -> None:
    """The receiver waits for much of it at once, and still hears that something comes."""
    data, pieces = payload(100_000), 25
    source, sink = tmp_path / "in", tmp_path / "out"
    os.mkfifo(source)

    async def trickle(sender: SocketChannel) -> None:
        async with sender.frame:
            await sender.write(encode_header(FrameType.DATA, len(data)))
            for start in range(0, len(data), len(data) // pieces):
                await sender.write(data[start : start + len(data) // pieces])
                await asyncio.sleep(FAST.silence / 10)
        stream = Outgoing()
        stream.total = len(data)
        await sender.send(FrameType.END, stream.say(FrameType.END))
        while stream.state is not State.CLOSED:
            stream.hear(*await sender.receive())
        await sender.send(FrameType.DONE)
        sender.close()

    async def work() -> Stats:
        sender, receiver = await channel_pair()
        got = os.open(source, os.O_RDONLY | os.O_NONBLOCK)
        sending = asyncio.ensure_future(trickle(sender))
        stats = await receive_stream(receiver, FifoWriter.open_path(str(source)), timing=FAST)
        await sending
        sink.write_bytes(os.read(got, 1 << 20) + os.read(got, 1 << 20))
        os.close(got)
        return stats

    assert run(work).bytes == len(data)
    assert digest(sink.read_bytes()) == digest(data)


@pytest.mark.parametrize("security", SECURITIES)
def test_a_slow_reader_is_not_a_dead_one(tmp_path: Path, security: str) -> None:
    """The FIFO stays full for twice the silence that means death."""
    rig = Rig(tmp_path, payload(4 * MIB))

    async def work() -> None:
        channels = await channel_pair(security)
        fd = os.open(rig.sink, os.O_RDONLY | os.O_NONBLOCK)
        running = asyncio.create_task(stream(rig, *channels))
        await asyncio.sleep(2 * FAST.silence)
        assert not running.done()
        os.set_blocking(fd, True)
        while piece := await asyncio.to_thread(os.read, fd, MIB):
            rig.got += piece
        os.close(fd)
        assert_whole(rig, await running)

    with background(rig.feed, rig.release):
        run(work)


@pytest.mark.parametrize("security", SECURITIES)
def test_late_stages_and_long_pauses_are_normal(tmp_path: Path, security: str) -> None:
    """Neither FIFO is opened, then nothing flows, each for longer than the silence."""
    rig = Rig(tmp_path, b"one\ntwo\n")

    async def work() -> None:
        running = asyncio.create_task(stream(rig, *await channel_pair(security)))
        await asyncio.sleep(1.5 * FAST.silence)
        out = await asyncio.to_thread(os.open, rig.source, os.O_WRONLY)
        os.write(out, b"one\n")
        await asyncio.sleep(1.5 * FAST.silence)
        fd = await asyncio.to_thread(os.open, rig.sink, os.O_RDONLY)
        assert await asyncio.to_thread(os.read, fd, 100) == b"one\n"
        os.write(out, b"two\n")
        assert await asyncio.to_thread(os.read, fd, 100) == b"two\n"
        os.close(out)
        assert await asyncio.to_thread(os.read, fd, 100) == b""
        os.close(fd)
        rig.got += rig.data
        assert_whole(rig, await running)

    run(work)


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("most", [0, 1, 100_000])
def test_a_reader_that_leaves_stops_the_first_stage(
    tmp_path: Path, security: str, most: int
) -> None:
    """`head` at the end of a chain of machines: both ends exit 0, the feeder gets SIGPIPE."""
    rig = Rig(tmp_path, payload(20 * MIB), drain_most=most)

    async def work() -> None:
        outcomes = await stream(rig, *await channel_pair(security))
        for one in outcomes:
            assert isinstance(one, Stats), one
            assert one.stopped

    with rig.stages():
        run(work)
    assert rig.got == rig.data[:most]
    assert rig.fed < len(rig.data)


def test_a_reader_that_leaves_stops_an_idle_sender_too(tmp_path: Path) -> None:
    """Nothing flows, and still the sender learns that nobody reads any more."""
    rig = Rig(tmp_path, b"")

    async def work() -> None:
        running = asyncio.create_task(stream(rig, *await channel_pair()))
        out = await asyncio.to_thread(os.open, rig.source, os.O_WRONLY)
        fd = await asyncio.to_thread(os.open, rig.sink, os.O_RDONLY)
        await asyncio.sleep(FAST.ping)
        os.close(fd)
        for one in await running:
            assert isinstance(one, Stats)
            assert one.stopped
        with pytest.raises(BrokenPipeError):
            os.write(out, b"x")
        os.close(out)

    run(work)


@pytest.mark.parametrize("security", SECURITIES)
def test_the_first_cause_travels(tmp_path: Path, security: str) -> None:
    """A stage upstream died: no END, and the receiver names that stage, not its own end."""
    rig = Rig(tmp_path, payload(300_000))
    reason = "sort was killed by signal 9\x1b[31m"

    async def work() -> None:
        sent, received = await stream(rig, *await channel_pair(security), reason)
        assert isinstance(sent, StreamBroken)
        assert isinstance(received, StreamBroken)
        assert not sent.reported_by_peer
        assert received.reported_by_peer
        assert received.cause == Cause("sort was killed by signal 9\\x1b[31m")
        assert received.at_byte == sent.at_byte == 300_000

    with rig.stages():
        run(work)


@pytest.mark.parametrize("security", SECURITIES)
def test_the_first_cause_reaches_a_slow_reader(tmp_path: Path, security: str) -> None:
    """The reason comes behind two megabytes that are still on the way: its sender waits."""
    rig = Rig(tmp_path, payload(2 * MIB))
    timing = dataclasses.replace(FAST, last_word=10.0)

    async def work() -> None:
        sender, receiver = await channel_pair(security)
        with contextlib.closing(rig.reader()) as source, contextlib.closing(rig.writer()) as sink:
            sent, received = await both(
                outcome(send_stream(sender, source, upstream_failure=saying("x"), timing=timing)),
                outcome(receive_stream(receiver, sink, timing=timing)),
            )
        assert isinstance(sent, StreamBroken)
        assert isinstance(received, StreamBroken)
        assert (received.reported_by_peer, received.cause) == (True, Cause("x"))
        assert received.at_byte == len(rig.data)

    def drain() -> None:
        fd = os.open(rig.sink, os.O_RDONLY)
        time.sleep(2 * FAST.silence)
        while os.read(fd, 65536):
            pass
        os.close(fd)

    with background(rig.feed, rig.release), background(drain, rig.release):
        run(work)


def test_a_full_disk_breaks_both_ends_with_its_name(tmp_path: Path) -> None:
    rig = Rig(tmp_path, payload(MIB))

    async def work() -> None:
        sender, receiver = await channel_pair()
        with (
            contextlib.closing(rig.reader()) as source,
            contextlib.closing(FifoWriter.open_path("/dev/full")) as sink,
        ):
            sent, received = await both(
                outcome(send_stream(sender, source, timing=FAST)),
                outcome(receive_stream(receiver, sink, timing=FAST)),
            )
        assert isinstance(received, StreamBroken)
        assert "/dev/full: No space left on device" in received.message
        assert isinstance(sent, StreamBroken)
        assert sent.reported_by_peer
        assert "No space left on device" in sent.cause.reason

    with background(rig.feed, rig.release):
        run(work)


def test_64_streams_share_a_process_and_one_stuck_reader_delays_none(tmp_path: Path) -> None:
    stuck = Rig(tmp_path, payload(2 * MIB))
    rigs = [Rig(tmp_path, payload(200_000, seed)) for seed in range(63)]

    async def work() -> None:
        fd = os.open(stuck.sink, os.O_RDONLY | os.O_NONBLOCK)
        blocked = asyncio.create_task(stream(stuck, *await channel_pair()))
        pairs = [await channel_pair("encrypted" if i % 2 else "authenticated") for i in range(63)]
        for outcomes, rig in zip(
            await asyncio.gather(*(stream(r, *p) for r, p in zip(rigs, pairs, strict=True))),
            rigs,
            strict=True,
        ):
            assert all(isinstance(one, Stats) for one in outcomes), outcomes
            assert not rig.got or len(rig.got) <= len(rig.data)
        assert not blocked.done()
        os.close(fd)
        assert all(isinstance(one, Stats) and one.stopped for one in await blocked)

    with contextlib.ExitStack() as stack:
        stack.enter_context(background(stuck.feed, stuck.release))
        for rig in rigs:
            stack.enter_context(rig.stages())
        run(work)
    for rig in rigs:
        assert digest(rig.got) == digest(rig.data)


@pytest.mark.parametrize("patient", [True, False])
def test_a_peer_of_the_first_release_hears_ping_more_often(tmp_path: Path, patient: bool) -> None:
    """It takes 10 s of silence for death; whoever has a `revision` does not."""
    rig = Rig(tmp_path, b"")
    timing = dataclasses.replace(FAST, ping=60.0, hasty_ping=0.1, silence=300.0)

    async def work() -> None:
        sender, receiver = await channel_pair()
        sender.patient = patient
        with contextlib.closing(rig.reader()) as source:
            sending = asyncio.ensure_future(send_stream(sender, source, timing=timing))
            heard = asyncio.ensure_future(receiver.receive())
            done, _ = await asyncio.wait([heard], timeout=1.0 if patient else 20.0)
            assert bool(done) is not patient
            if done:
                assert heard.result().type is FrameType.PING
            heard.cancel()
            sending.cancel()
            await asyncio.wait([heard, sending])
        receiver.close()

    run(work)
