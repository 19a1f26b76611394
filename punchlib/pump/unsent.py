"""What may wait unsent in this process's sockets: one budget for all its senders.

The kernel lets each socket's queue grow to megabytes. That saves a lone stream wake-ups; the queues
of hundreds of streams would be a gigabyte of a small machine's memory, all of it cold.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

#: Bytes, over all senders. What is in flight is not counted: the path's length is not limited.
BUDGET = 16 << 20

_senders: set[socket.socket] = set()
_share = 0


@contextlib.contextmanager
def shared(sock: socket.socket) -> Iterator[None]:
    """Gives a sender its share of the budget for the length of a `with` block."""
    _senders.add(sock)
    try:
        _divide(sock)
        yield
    finally:
        _senders.discard(sock)
        _divide()


def _divide(*new: socket.socket) -> None:
    """Shares are powers of two: the others' change seldom."""
    global _share
    before, _share = _share, BUDGET >> (max(len(_senders), 1) - 1).bit_length()
    # A copy: other threads' loops have senders too. And one of them may be closed by now.
    for sock in new if _share == before else tuple(_senders):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _share)
