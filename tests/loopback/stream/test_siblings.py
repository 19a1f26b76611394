"""One TLS connection's death is nobody else's: OpenSSL's error queue belongs to the thread."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from punchlib.core.frames import FrameType
from punchlib.core.handshake import Identity, Terms
from punchlib.errors import PunchError
from punchlib.net.channel import SocketChannel
from punchlib.net.verifying import open_channel

IDENTITY = Identity.generate()


async def pair() -> tuple[SocketChannel, SocketChannel]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        receiver, _ = listener.accept()
    for sock in (sender, receiver):
        sock.setblocking(False)
    sides = ("1" * 16, "2" * 16)

    def terms(sending: bool) -> Terms:
        mine, theirs = sides if sending else sides[::-1]
        return Terms("k", sending, mine, theirs, my_identity=IDENTITY, peer_cert=IDENTITY.cert_der)

    a, b = await asyncio.gather(
        open_channel(sender, terms(True)), open_channel(receiver, terms(False))
    )
    return a, b


def test_a_broken_connection_does_not_break_its_siblings() -> None:
    async def main() -> None:
        doomed, killer = await pair()
        sender, receiver = await pair()
        killer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        killer.close()
        for _ in range(3):
            with pytest.raises(PunchError):
                await doomed.send(FrameType.DATA, b"x")
                await doomed.receive()
            waiting = asyncio.ensure_future(receiver.receive())
            await asyncio.sleep(0.01)
            assert not waiting.done(), "a healthy connection reports its sibling's death"
            await sender.send(FrameType.DATA, b"hello")
            assert bytes((await waiting).payload) == b"hello"
        for channel in (doomed, sender, receiver):
            channel.close()

    asyncio.run(main())
