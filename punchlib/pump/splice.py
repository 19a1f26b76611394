"""Payload between a FIFO and a plain TCP socket without a copy in user space."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from punchlib.core.frames import FrameType, encode_header
from punchlib.errors import StreamBroken

if TYPE_CHECKING:
    from punchlib.net.channel import SocketChannel
    from punchlib.pump.fifo import FifoReader, FifoWriter

#: Bytes of a frame that are waited for at once, as far as it has them: behind NATs it comes in
#: pieces of a few segments, and to wake up costs more than to move them. The sender has the whole
#: frame already, so no byte waits for one that is yet to be written.
_WORTH_WAKING = 128 << 10


async def splice_out(channel: SocketChannel, fifo: FifoReader, size: int) -> None:
    """Sends one DATA frame of `size` bytes that are in the FIFO already.

    Raises:
        StreamBroken: the connection broke, or somebody else reads from the FIFO too.
    """
    sock = channel.sock.fileno()
    async with channel.frame:
        # MSG_MORE: the header leaves in one segment with the payload.
        await channel.write(encode_header(FrameType.DATA, size), socket.MSG_MORE)
        while True:
            try:
                moved = os.splice(fifo.fd, sock, size, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                moved = 0  # as it is without an error when all writers have gone
            except OSError as error:
                raise channel.translate(error) from error
            size -= moved
            if not size:
                return
            if not moved and fifo.is_empty():
                raise StreamBroken(f"another process also reads from {fifo.name}")
            await channel.wait_writable()


async def splice_in(
    channel: SocketChannel, fifo: FifoWriter, size: int, count: Callable[[int], None]
) -> None:
    """Moves `size` bytes of payload from the connection into the FIFO.

    Args:
        channel: its next `size` bytes are payload.
        fifo: opened.
        size: bytes to move.
        count: is told of every piece that is in the FIFO.

    Raises:
        BrokenPipeError: the FIFO's reader has left; the bytes not counted are still to be read.
        StreamBroken: the connection broke.
    """
    sock = channel.sock.fileno()
    while True:
        try:
            moved = os.splice(sock, fifo.fd, size, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            pass
        except BrokenPipeError:
            raise
        except OSError as error:
            raise channel.translate(error) from error
        else:
            if not moved:
                raise channel.closed_by_peer()
            count(moved)
            size -= moved
            if not size:
                return
        # A short count is as good as a failed attempt: one of the two is the reason.
        if fifo.has_room():
            await channel.wait_readable(min(size, _WORTH_WAKING))
        else:
            await fifo.wait_writable()
