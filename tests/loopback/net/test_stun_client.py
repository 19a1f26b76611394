"""STUN servers that lie, stall, hang up, or are dead: the port opens all the same, and says why."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from punchlib.core import stun
from punchlib.core.candidates import TransportAddress
from punchlib.net.stun_client import StunClient
from tests.support.ministack import free_port

Answer = Callable[[bytes, TransportAddress], bytes]
LIE = TransportAddress("198.51.100.99", 4711)


@contextlib.asynccontextmanager
async def server(answer: Answer, *, closes_after: float = 60.0) -> AsyncIterator[tuple[str, int]]:
    """A STUN server over TCP that answers as told and hangs up."""

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())  # type: ignore[arg-type]
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            request = await reader.readexactly(20)
            seen = TransportAddress(*writer.get_extra_info("peername")[:2])
            writer.write(answer(stun.parse_request(request), seen))
            await writer.drain()
            await asyncio.sleep(closes_after)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield running.sockets[0].getsockname()[:2]
    finally:
        running.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)


def honest(transaction: bytes, seen: TransportAddress) -> bytes:
    return stun.binding_success(transaction, seen)


def garbage(transaction: bytes, seen: TransportAddress) -> bytes:
    return b"HTTP/1.1 400 Bad Request\r\n\r\n"


def someone_elses(transaction: bytes, seen: TransportAddress) -> bytes:
    return stun.binding_success(b"x" * 12, LIE)


def metadata_service(transaction: bytes, seen: TransportAddress) -> bytes:
    return stun.binding_success(transaction, TransportAddress("169.254.169.254", seen.port))


def silence(transaction: bytes, seen: TransportAddress) -> bytes:
    return b""


def run(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(main())  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [garbage, someone_elses, metadata_service, silence])
def test_the_next_server_is_asked(bad: Answer) -> None:
    async def main() -> None:
        async with server(bad) as first, server(honest) as second:
            client = StunClient([first, second], timeout=8.0)
            port = await client.open_port()
            assert port.mapped == port.local
            port.close()
            await client.close()

    run(main)


def test_all_dead_is_no_hang_and_is_explained() -> None:
    async def main() -> None:
        dead = ("127.0.0.1", free_port())
        client = StunClient([dead], timeout=2.0)
        started = asyncio.get_running_loop().time()
        port = await client.open_port()
        assert asyncio.get_running_loop().time() - started < 4.0
        assert port.mapped is None
        assert any(f"{dead[0]}:{dead[1]} over TCP" in line for line in client.failures)
        port.close()
        await client.close()

    run(main)


def test_a_lie_is_named() -> None:
    async def main() -> None:
        async with server(metadata_service) as liar:
            client = StunClient([liar], timeout=2.0)
            port = await client.open_port()
            assert port.mapped is None
            said = rf"over TCP: it says that we are at 169\.254\.169\.254:{port.local.port}, where"
            assert any(re.search(said, line) for line in client.failures), client.failures
            port.close()
            await client.close()

    run(main)


def test_a_name_that_does_not_resolve_is_explained() -> None:
    async def main() -> None:
        client = StunClient([("no-such-host.invalid", 3478)], timeout=2.0)
        port = await client.open_port()
        assert port.mapped is None
        assert any("no-such-host.invalid:3478" in line for line in client.failures)
        port.close()
        await client.close()

    run(main)


def test_a_closed_keeper_is_opened_again() -> None:
    bindings: list[TransportAddress] = []

    def counting(transaction: bytes, seen: TransportAddress) -> bytes:
        bindings.append(seen)
        return stun.binding_success(transaction, LIE)

    async def main() -> None:
        async with server(counting, closes_after=0.2) as address:
            client = StunClient([address], timeout=4.0)
            port = await client.open_port()
            keeping = asyncio.ensure_future(client.keep(port))
            await asyncio.sleep(1.5)
            assert not keeping.done(), "the mapping is the same"
            assert len(bindings) >= 3
            assert set(bindings) == {bindings[0]}, "from the same port every time"
            keeping.cancel()
            port.close()
            await client.close()

    run(main)


def test_without_a_nat_there_is_no_mapping_to_keep() -> None:
    bindings: list[TransportAddress] = []

    def honest(transaction: bytes, seen: TransportAddress) -> bytes:
        bindings.append(seen)
        return stun.binding_success(transaction, seen)

    async def main() -> None:
        async with server(honest, closes_after=0.2) as address:
            client = StunClient([address], timeout=4.0)
            port = await client.open_port()
            keeping = asyncio.ensure_future(client.keep(port))
            await asyncio.sleep(1.0)
            assert not keeping.done()
            assert len(bindings) == 1
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind(("0.0.0.0", port.local.port))
            keeping.cancel()
            port.close()
            await client.close()

    run(main)


def test_a_new_mapping_is_noticed() -> None:
    mapped = [LIE]

    def moving(transaction: bytes, seen: TransportAddress) -> bytes:
        return stun.binding_success(transaction, mapped[-1])

    async def main() -> None:
        async with server(moving, closes_after=0.2) as address:
            client = StunClient([address], timeout=4.0)
            port = await client.open_port()
            mapped.append(TransportAddress(LIE.host, LIE.port + 1))
            async with asyncio.timeout(3.0):
                await client.keep(port)
            port.close()
            await client.close()

    run(main)


def test_udp_tells_the_address_where_tcp_is_blocked() -> None:
    """pystun3 against a server that answers over UDP only."""

    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.setblocking(False)
            udp.bind(("127.0.0.1", free_port()))
            loop = asyncio.get_running_loop()

            async def serve() -> None:
                while True:
                    data, sender = await loop.sock_recvfrom(udp, 2048)
                    value = b"\x00\x01" + sender[1].to_bytes(2, "big") + socket.inet_aton(sender[0])
                    head = b"\x01\x01\x00\x0c" + data[4:20]
                    await loop.sock_sendto(udp, head + b"\x00\x01\x00\x08" + value, sender)

            serving = asyncio.ensure_future(serve())
            client = StunClient([udp.getsockname()], timeout=4.0)
            port = await client.open_port()
            assert port.mapped == TransportAddress("127.0.0.1", port.local.port)
            serving.cancel()
            port.close()
            await client.close()

    run(main)


def test_a_server_that_is_gone_when_we_come_to_read_its_answer() -> None:
    """A starved process finds the answer, and a connection that no longer says whose it was."""

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # until it is closed
            while True:
                connection, peer = listener.accept()
                request = connection.recv(20, socket.MSG_WAITALL)
                seen = TransportAddress(*peer[:2])
                connection.sendall(stun.binding_success(stun.parse_request(request), seen))
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                connection.close()

    async def work(address: tuple[str, int]) -> None:
        async def starve() -> None:
            while True:
                await asyncio.sleep(0.001)
                time.sleep(0.1)

        starving = asyncio.ensure_future(starve())
        for _ in range(3):
            client = StunClient((address,), timeout=10.0)
            opened = await client.open_port()
            assert opened.mapped is not None, client.failures
            opened.close()
            await client.close()
        starving.cancel()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            asyncio.run(work(listener.getsockname()[:2]))
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
