"""Thousands of ways to break a stream, and only two outcomes.

Either the right bytes arrive and both ends succeed, or both ends fail with a typed error within
the deadline. `FAULTS=N` sets how many injections are drawn (`make faults`: 1,000 and more).

Two exceptions are stated, not hidden. `authenticated` has no check on the payload, so a flipped
payload bit arrives flipped (docs/security.md); there only flips outside of the payload are drawn.
And when the fault hits the ACK, the receiver knows that it has all and the sender does not
(docs/wire.md): the bytes are right, the receiver says so, and the sender fails. A fault that hits
DONE, the very last word, changes nothing but that.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from punchlib.core.handshake import CONFIRMATION_SIZE, GREETING_SIZE
from punchlib.errors import PeerNotVerified, PunchError, StreamBroken
from punchlib.net.channel import SocketChannel
from punchlib.pump.stream import Stats
from tests.support.fault_proxy import SIZES, Fault, FaultProxy, Kind
from tests.support.stream_rig import (
    DEADLINE,
    FAST,
    Listener,
    Outcome,
    Rig,
    dial,
    digest,
    payload,
    run,
    stream,
    terms_pair,
)
from tests.support.tiers import quick

COUNT = int(os.environ.get("FAULTS", "40"))
SEED = int(os.environ.get("FAULTS_SEED", "5"))


def draw(number: int) -> tuple[str, int, Fault]:
    """The injection of this number: security, payload size, fault."""
    rng = random.Random(f"{SEED}/{number}")
    security = rng.choice(("authenticated", "encrypted"))
    kind = rng.choice([kind for kind in Kind if kind is not Kind.NONE])
    size = rng.choice(SIZES)
    forward = rng.random() < 0.75
    before = GREETING_SIZE + CONFIRMATION_SIZE if security == "authenticated" else 1200
    if not forward:
        at = rng.randrange(0, 200 if security == "authenticated" else 1300)
    elif rng.random() < 0.5:
        at = rng.randrange(0, before + 40)  # the handshake, the first header
    else:
        at = rng.randrange(0, before + size + 16)
    if kind is Kind.FLIP and security == "authenticated" and forward:
        at = rng.randrange(0, before)
    delay = rng.uniform(0.1, 0.6) * FAST.silence
    return security, size, Fault(kind, at, forward, delay, rng.randrange(8))


async def inject(rig: Rig, security: str, fault: Fault) -> tuple[Outcome, Outcome, FaultProxy]:
    """Runs one stream through the proxy, from the dial on."""
    sending, receiving = terms_pair(security)
    listener = Listener(receiving)
    async with asyncio.timeout(DEADLINE), FaultProxy(listener.address, fault).running() as proxy:

        async def nominate() -> SocketChannel:
            async with asyncio.timeout(FAST.handshake):
                return await listener.nominate()

        opened = await asyncio.gather(
            dial(proxy.address, sending), nominate(), return_exceptions=True
        )
        sender, receiver = opened
        for one in opened:
            if isinstance(one, BaseException) and not isinstance(one, PunchError | TimeoutError):
                raise one
        if isinstance(sender, SocketChannel) and isinstance(receiver, SocketChannel):
            return *await stream(rig, sender, receiver), proxy
        # One end has a channel and the other has not: it too must come to an end.
        failures: list[Outcome] = []
        for one in opened:
            if isinstance(one, SocketChannel):
                failures.append(await lonely(rig, one, one is sender))
            elif isinstance(one, PunchError):
                failures.append(one)
            else:
                failures.append(PeerNotVerified("nobody came who verifies"))
        return failures[0], failures[1], proxy


async def lonely(rig: Rig, channel: SocketChannel, sending: bool) -> Outcome:
    """Runs the stream of an end whose peer never verified."""
    from punchlib.pump.stream import receive_stream, send_stream
    from tests.support.stream_rig import outcome

    if sending:
        fifo = rig.reader()
        work = send_stream(channel, fifo, timing=FAST)
    else:
        sink = rig.writer()
        work = receive_stream(channel, sink, timing=FAST)
    try:
        return await outcome(work)
    finally:
        (fifo if sending else sink).close()


@pytest.mark.parametrize("number", quick(range(COUNT), 10))
def test_right_bytes_or_two_errors(tmp_path: Path, number: int) -> None:
    security, size, fault = draw(number)
    rig = Rig(tmp_path, payload(size))
    with rig.stages():
        sent, received, proxy = run(lambda: inject(rig, security, fault))
    told = f"{security}, {size} bytes, {fault}, struck={proxy.struck}: {sent!r}, {received!r}"
    if isinstance(sent, Stats) and isinstance(received, Stats):
        assert digest(rig.got) == digest(rig.data), told
        harmless = fault.kind in (Kind.DELAY, Kind.DUPLICATE)
        assert harmless or not proxy.struck or received.note, told
    elif isinstance(received, Stats):
        assert isinstance(sent, StreamBroken), told
        assert received.note.startswith("everything came, but"), told
        assert digest(rig.got) == digest(rig.data), told
    else:
        assert not isinstance(sent, Stats), told
        for one in (sent, received):
            assert isinstance(one, StreamBroken | PeerNotVerified), told
            assert one.message, told
        assert proxy.struck, told
        assert fault.kind not in (Kind.DELAY, Kind.DUPLICATE), told
        assert rig.data.startswith(bytes(rig.got)), told
