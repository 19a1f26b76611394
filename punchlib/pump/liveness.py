"""Telling a dead peer from a slow one.

Looks without a sign of life are counted, not seconds: when our own machine stood still (a frozen
Lambda worker, a starved laptop), what came meanwhile is read before the next look.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from typing import NamedTuple

from punchlib.core.timing import Timing
from punchlib.errors import PeerSilent
from punchlib.net.channel import Channel, SocketChannel

#: Looks in a row, over the time of `Timing.silence`, that make a peer dead.
_LOOKS = 8
#: Probes of a shut window in a row that nobody answers; six seconds at the least.
_PROBES = 5
# The head of struct tcp_info (linux/tcp.h), which only ever grows at its end: eight bytes, then
# rto, ato, snd_mss, rcv_mss, unacked, sacked, lost, retrans, fackets, and four times in ms.
_TCP_INFO = struct.Struct("=8B13I")


async def watch_peer(channel: Channel, timing: Timing, *, pings: bool = True) -> None:
    """Runs until the peer is dead.

    Two signs are due from a living one: while somebody waits in `receive`, a frame; and at any
    time, also while our own FIFO is stuck, the acknowledgement of what we sent (a PING, that is).

    Args:
        channel: verified.
        timing: waiting times.
        pings: the peer sends PINGs. An old (v1) one never says that it is alive, so there the
            probes of a shut window are looked at too.

    Raises:
        PeerSilent: the peer is dead or cannot be reached.
    """
    pause = timing.silence / _LOOKS
    waited = owed = 0
    before: float | None = None
    while True:
        await asyncio.sleep(pause)
        since = channel.waiting_since if pings else None
        known = _signs(channel)
        # A frame may be long on its way, and whoever waits for much of it is not woken by less.
        silent = since is not None and since == before and known.nothing_came >= pause
        waited = waited + 1 if silent else 0
        before = since
        owed = owed + 1 if known.outstanding and known.quiet >= pause else 0
        if max(waited, owed) >= _LOOKS or (not pings and known.probes >= _PROBES):
            what = "nothing heard" if waited > owed else "no acknowledgement"
            raise PeerSilent(
                f"the peer is dead or unreachable: {what} for {timing.silence:g} s "
                f"({channel.description})"
            )


class _Signs(NamedTuple):
    """Signs of life that the kernel has seen.

    Attributes:
        nothing_came: seconds since the last byte.
        outstanding: segments that the peer's machine has not acknowledged.
        quiet: seconds since the last acknowledgement of anything.
        probes: probes of a shut window since then.
    """

    nothing_came: float = math.inf
    outstanding: int = 0
    quiet: float = 0.0
    probes: int = 0


def _signs(channel: Channel) -> _Signs:
    """Asks the kernel; of a route that is no connection it knows nothing."""
    if not isinstance(channel, SocketChannel):
        return _Signs()
    info = channel.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    numbers = _TCP_INFO.unpack(info)
    return _Signs(numbers[19] / 1000, numbers[12], numbers[20] / 1000, numbers[3])
