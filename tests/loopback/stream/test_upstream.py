"""Before END the sender asks what became of its source's makers; the answer may take long."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from punchlib.errors import Cause, StreamBroken
from punchlib.pump.stream import Stats, send_stream
from tests.support.stream_rig import (
    FAST,
    Rig,
    assert_whole,
    background,
    channel_pair,
    no_tasks_left,
    payload,
    run,
    stream,
)


class Slow:
    """A question that is answered when the test says so."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer: asyncio.Future[Cause | None] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> Cause | None:
        self.asked.set()
        return await self.answer


@pytest.mark.parametrize("security", ["authenticated", "encrypted"])
@pytest.mark.parametrize("cause", [None, Cause("it died"), Cause("it died", "worker1")])
def test_an_answer_that_takes_longer_than_any_silence(
    tmp_path: Path, security: str, cause: Cause | None
) -> None:
    rig = Rig(tmp_path, payload(300_000))

    async def work() -> None:
        question = Slow()
        running = asyncio.ensure_future(stream(rig, *await channel_pair(security), question))
        await question.asked.wait()
        await asyncio.sleep(2 * FAST.silence)
        assert not running.done()
        question.answer.set_result(cause)
        sent, received = outcomes = await running
        if cause is None:
            assert_whole(rig, outcomes)
        else:
            assert isinstance(sent, StreamBroken)
            assert isinstance(received, StreamBroken)
            assert received.cause == cause
            assert received.at_byte == sent.at_byte == 300_000

    with rig.stages():
        run(work)


def test_a_receiver_that_wants_no_more_does_not_wait_for_the_answer(tmp_path: Path) -> None:
    rig = Rig(tmp_path, b"abc")

    async def work() -> None:
        async with no_tasks_left():
            question = Slow()
            running = asyncio.ensure_future(stream(rig, *await channel_pair(), question))
            await question.asked.wait()
            os.close(await asyncio.to_thread(os.open, rig.sink, os.O_RDONLY))
            for one in await running:
                assert isinstance(one, Stats)
                assert one.stopped
            assert question.answer.cancelled()

    with background(rig.feed, rig.release):
        run(work)


def test_the_receivers_failure_ends_the_wait(tmp_path: Path) -> None:
    rig = Rig(tmp_path, b"abc")

    async def work() -> None:
        async with no_tasks_left():
            question = Slow()
            sender, receiver = await channel_pair()
            running = asyncio.ensure_future(stream(rig, sender, receiver, question))
            await question.asked.wait()
            receiver.sock.shutdown(2)
            for one in await running:
                assert isinstance(one, StreamBroken)
            assert question.answer.cancelled()

    with rig.stages():
        run(work)


def test_a_silent_receiver_ends_the_wait(tmp_path: Path) -> None:
    rig = Rig(tmp_path, b"")

    async def work() -> None:
        async with no_tasks_left():
            question = Slow()
            sender, receiver = await channel_pair()
            with pytest.raises(StreamBroken, match="its process has said nothing"):
                await send_stream(sender, rig.reader(), upstream_failure=question, timing=FAST)
            assert question.answer.cancelled()
            receiver.close()

    with rig.stages():
        run(work)


def test_a_stopped_sender_stops_asking(tmp_path: Path) -> None:
    rig = Rig(tmp_path, b"abc")

    async def work() -> None:
        async with no_tasks_left():
            question = Slow()
            running = asyncio.ensure_future(stream(rig, *await channel_pair(), question))
            await question.asked.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert question.answer.cancelled()

    with rig.stages():
        run(work)
