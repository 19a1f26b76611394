"""A FIFO that somebody else reads, too: what was counted is gone when it is to be sent."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from punchlib.errors import StreamBroken
from punchlib.net.channel import SocketChannel
from punchlib.pump.splice import splice_out
from tests.support.stream_rig import Rig, run, tcp_pair


@pytest.mark.parametrize("writer_stays", [True, False])
@pytest.mark.parametrize("taken", [1000, 400])
def test_another_reader_is_named(tmp_path: Path, writer_stays: bool, taken: int) -> None:
    """Where no writer was left it spun: a splice says 0 there, and no error."""
    rig = Rig(tmp_path, b"")
    here, there = tcp_pair()

    async def work() -> None:
        with (
            contextlib.closing(rig.reader()) as fifo,
            contextlib.closing(SocketChannel(here)) as to,
        ):
            writer = os.open(rig.source, os.O_WRONLY)
            os.write(writer, bytes(1000))
            size = await fifo.available(1 << 20)
            another = os.open(rig.source, os.O_RDONLY)
            os.read(another, taken)
            os.close(another)
            if not writer_stays:
                os.close(writer)
            with pytest.raises(StreamBroken, match=f"another process also reads from {fifo.name}"):
                await splice_out(to, fifo, size)
            if writer_stays:
                os.close(writer)

    with there:
        run(work)
