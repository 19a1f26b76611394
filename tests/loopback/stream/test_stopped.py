"""A stream that is stopped says what it was waiting for, here and at its peer."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchlib.errors import StreamBroken
from punchlib.pump.fifo import FifoReader, FifoWriter
from punchlib.pump.stream import receive_stream, send_stream
from punchlib.stopping import stopped
from tests.support.stream_rig import FAST, channel_pair, run

MIB = 1 << 20


@contextlib.contextmanager
def held(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


async def settled(out: int | None, feed: int) -> None:
    """Until what can be on its way has arrived in the FIFO `out`, and nothing moves any more."""
    seen, quiet = -1, 0
    for _ in range(600):
        await asyncio.sleep(0.1)
        there = bytearray(4)
        if out is not None:
            fcntl.ioctl(out, termios.FIONREAD, there)
        now = int.from_bytes(there, sys.byteorder)
        quiet = quiet + 1 if now == seen else 0
        seen = now
        if quiet >= 10 and (out is None or bool(now) == bool(feed)):
            return
    raise AssertionError(f"{seen} bytes in the FIFO, which is not what was expected")


@pytest.mark.parametrize("security", ["authenticated", "encrypted"])
@pytest.mark.parametrize(
    ("victim", "feed", "reader", "said"),
    [
        ("send", 0, True, r"sending, at byte 0, waiting for more from \S+/in"),
        ("send", 9, True, r"sending, at byte 9, waiting for more from \S+/in"),
        ("send", 64 * MIB, True, r"sending, at byte \d+, waiting for the peer to take more"),
        ("recv", 9, False, r"receiving, at byte 0, waiting for somebody to read \S+/out"),
        ("recv", 9, True, r"receiving, at byte 9, waiting for the peer to send more"),
        ("recv", 64 * MIB, True, r"receiving, at byte \d+, waiting for room in \S+/out"),
    ],
)
def test_it_says_what_it_waited_for(
    tmp_path: Path, security: str, victim: str, feed: int, reader: bool, said: str
) -> None:
    source, sink = tmp_path / "in", tmp_path / "out"
    os.mkfifo(source)
    os.mkfifo(sink)

    async def fill(fd: int) -> None:
        left = feed
        while left:
            with contextlib.suppress(BlockingIOError):
                left -= os.write(fd, bytes(min(left, MIB)))
            await asyncio.sleep(0.001)

    async def work() -> tuple[str, str]:
        sender, receiver = await channel_pair(security)
        with contextlib.closing(FifoReader.open_path(str(source))) as fifo:
            ends = {
                "send": asyncio.ensure_future(send_stream(sender, fifo, timing=FAST)),
                "recv": asyncio.ensure_future(
                    receive_stream(receiver, FifoWriter.open_path(str(sink)), timing=FAST)
                ),
            }
            filling = asyncio.ensure_future(fill(writer))
            await settled(out, feed)
            filling.cancel()
            stop = ends.pop(victim)
            (peer,) = ends.values()
            stop.cancel()
            await asyncio.wait([stop, peer])
        with pytest.raises(asyncio.CancelledError) as cancelled:
            stop.result()
        error = peer.exception()
        assert isinstance(error, StreamBroken)
        return stopped(cancelled.value), error.message

    with held(source, os.O_RDWR) as writer, contextlib.ExitStack() as stack:
        out = stack.enter_context(held(sink, os.O_RDONLY)) if reader else None
        here, there = run(work)
    assert re.fullmatch(f"stopped, while {said}", here), here
    # A receiver that takes nothing hears nothing either, but that the connection has closed.
    if feed < MIB:
        assert f"the peer reports: {here}" in there
