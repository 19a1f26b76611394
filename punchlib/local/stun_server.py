"""A small STUN server over TCP and UDP, for `punch run --local` where coturn is not installed.

    python -m punchlib.local.stun_server HOST:PORT…

It answers binding requests with the address they came from, on every address it is given, and
ignores everything else. It serves until SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from typing import cast

from punchlib.core import stun
from punchlib.core.candidates import TransportAddress
from punchlib.errors import UsageError

#: Seconds after which a silent TCP client is let go. Punching keeps its connection open that long.
IDLE = 120.0


class _Udp(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own transport is one by its methods only, not by its class.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = _answer(data, addr)
        if answer:
            self._transport.sendto(answer, addr)


async def serve(sockets: list[socket.socket]) -> None:
    """Serves on all sockets, stream and datagram ones, until it is cancelled."""
    loop = asyncio.get_running_loop()
    servers, datagrams = [], []
    try:
        for each in sockets:
            if each.type == socket.SOCK_STREAM:
                servers.append(await asyncio.start_server(_tcp, sock=each, backlog=1024))
            else:
                transport, _ = await loop.create_datagram_endpoint(_Udp, sock=each)
                datagrams.append(transport)
        await asyncio.Event().wait()
    finally:
        for server in servers:
            server.close()
        for transport in datagrams:
            transport.close()


def run(sockets: list[socket.socket]) -> None:
    """The same, until the process is killed."""
    asyncio.run(serve(sockets))


async def _tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    peer = writer.get_extra_info("peername")[:2]
    buffer = b""
    try:
        while True:
            length = stun.message_length(buffer)
            if length is not None and len(buffer) >= length:
                answer = _answer(buffer[:length], peer)
                if answer is None:
                    return
                writer.write(answer)
                await writer.drain()
                buffer = buffer[length:]
                continue
            chunk = await asyncio.wait_for(reader.read(4096), IDLE)
            if not chunk:
                return
            buffer += chunk
    except (stun.StunError, TimeoutError, OSError):
        return  # a stranger, or a client that has left: nothing to answer
    finally:
        writer.close()


def _answer(message: bytes, peer: tuple[str, int]) -> bytes | None:
    try:
        transaction = stun.parse_request(message)
    except stun.StunError:
        return None
    return stun.binding_success(transaction, TransportAddress(peer[0], peer[1]))


def main(argv: list[str] | None = None) -> int:
    """`python -m punchlib.local.stun_server HOST:PORT…`."""
    addresses = []
    for text in sys.argv[1:] if argv is None else argv:
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit():
            print(UsageError(f"{text!r} is not HOST:PORT"), file=sys.stderr)
            return UsageError.exit_code
        addresses.append((host, int(port)))
    try:
        sockets = [s for address in addresses for s in _bind(address)]
    except OSError as error:
        print(f"stun-server: {error}", file=sys.stderr)
        return 1
    return asyncio.run(_until_stopped(sockets))


def _bind(address: tuple[str, int]) -> list[socket.socket]:
    datagrams = socket.socket(type=socket.SOCK_DGRAM)
    datagrams.bind(address)
    return [socket.create_server(address, backlog=1024), datagrams]


async def _until_stopped(sockets: list[socket.socket]) -> int:
    task = asyncio.ensure_future(serve(sockets))
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
