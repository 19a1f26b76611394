"""The two ends of a connection's stream, whichever wire the peer speaks: decided here, once."""

from __future__ import annotations

from punchlib.net.connection import Connection
from punchlib.pump.fifo import FifoReader, FifoWriter
from punchlib.pump.stats import Stats, Tell, nobody
from punchlib.pump.stream import Question, nothing, receive_stream, send_stream
from punchlib.pump.v1 import receive_stream_v1, send_stream_v1
from punchlib.stopping import doing


async def send(
    connection: Connection,
    fifo: FifoReader,
    *,
    upstream_failure: Question = nothing,
    tell: Tell = nobody,
) -> Stats:
    """Sends all that comes out of a FIFO; see `send_stream`.

    An old (v1) peer is not told why a stream fails: its wire has a reset for all failures.

    Raises:
        StreamBroken: the receiver has not got everything, or failed.
    """
    timing = connection.timing
    if connection.channel is not None:
        return await send_stream(
            connection.channel,
            fifo,
            upstream_failure=upstream_failure,
            timing=timing,
            node=connection.node,
            tell=tell,
        )
    assert connection.raw is not None
    with doing(lambda: f"sending {fifo.name} to an old (v1) peer"):
        return await send_stream_v1(
            connection.raw, fifo, upstream_failure=upstream_failure, timing=timing, tell=tell
        )


async def receive(connection: Connection, fifo: FifoWriter, *, tell: Tell = nobody) -> Stats:
    """Writes all that the peer sends into a FIFO; see `receive_stream`.

    Raises:
        StreamBroken: not everything came, or it could not be written.
    """
    timing = connection.timing
    if connection.channel is not None:
        return await receive_stream(
            connection.channel, fifo, timing=timing, node=connection.node, tell=tell
        )
    assert connection.raw is not None
    with doing(lambda: f"receiving {fifo.name} from an old (v1) peer"):
        return await receive_stream_v1(connection.raw, fifo, timing=timing, tell=tell)
