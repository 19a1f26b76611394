"""A connection that our own kernel ends, for its peer's kernel answers no keep-alive probe."""

from __future__ import annotations

import asyncio
import os
import socket
import struct

import pytest

from punchlib.core.frames import FrameType
from punchlib.errors import PeerSilent, StreamBroken
from punchlib.net import channel
from tests.support.fault_gate import private_network
from tests.support.stream_rig import channel_pair, run

_VANISHED = """
table ip vanished {
    chain input {
        type filter hook input priority 0
        ip protocol tcp drop
    }
}
"""
SECURITIES = ["authenticated", "encrypted"]


@pytest.mark.nat
@pytest.mark.parametrize("security", SECURITIES)
def test_who_only_listens_says_what_its_kernel_has_found(
    security: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS reads an end of the stream there; whoever hears that looks for it at the peer."""
    if os.geteuid() != 0:
        pytest.skip("needs root for a network namespace")
    for name in ("KEEP_ALIVE_IDLE", "KEEP_ALIVE_PAUSE", "KEEP_ALIVE_PROBES"):
        monkeypatch.setattr(channel, name, 1)
    monkeypatch.setattr(channel, "_SILENT", 2)

    with private_network() as ns:

        async def listen() -> None:
            here, there = await channel_pair(security)
            channel.tune(here.sock)
            await asyncio.sleep(0.5)  # nothing is outstanding: what is, `core.liveness` looks after
            ns.nft(_VANISHED)
            with pytest.raises(PeerSilent, match="dead or unreachable: no acknowledgement for 2 s"):
                await here.receive()
            here.close()
            there.close()

        run(listen)


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("reset", [False, True])
def test_an_end_that_the_peer_makes_is_the_peers(security: str, reset: bool) -> None:
    async def listen() -> None:
        here, there = await channel_pair(security)
        await there.send(FrameType.PING)
        await here.receive()  # only now does a TLS client know that it is accepted
        listening = asyncio.ensure_future(here.receive())
        await asyncio.sleep(0.1)
        if reset:
            there.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        there.close()
        with pytest.raises(StreamBroken) as broken:
            await listening
        assert not isinstance(broken.value, PeerSilent)
        here.close()

    run(listen)
