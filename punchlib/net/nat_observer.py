"""How our NAT behaves (RFC 5780): learned once in a process, beside the first mapping.

Mapping decides whether a peer can dial us at all, so everybody waits for it; it costs one more
exchange. Filtering decides only whether an unpredictable peer can be let in; a "no" takes a silence
to learn, so nobody waits: who needs it and does not know it tries for a moment.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

from punchlib.core import stun
from punchlib.core.candidates import TransportAddress, believable
from punchlib.core.records import Filtering, Mapping, Nat
from punchlib.net import sockets
from punchlib.net.own_time import own_timeout

#: Seconds that the second opinion on the mapping may take after the first.
SECOND_OPINION = 0.3
#: How often a UDP request is sent, and how long its answer may take, in round trips plus a margin.
TRIES = 3
ROUND_TRIPS = 1.5
MARGIN = 0.03


class NatObserver:
    """Observes from the first binding on.

    Args:
        local: our end of that exchange.
        server: the server's.
        response: what it said.
        other_server: resolves another server, for when this one has no second address.
        margin: seconds beyond the round trips for which silence must last before it says that the
            NAT filters.

    Attributes:
        local: as given.
        without_nat: the server saw our own address: there is no NAT (though maybe a firewall).
    """

    def __init__(
        self,
        local: TransportAddress,
        server: TransportAddress,
        response: stun.BindingResponse,
        other_server: Callable[[], Awaitable[TransportAddress]],
        margin: float = MARGIN,
    ) -> None:
        self.local = local
        self.without_nat = response.mapped == local
        self._server = server
        self._response = response
        self._other_server = other_server
        self._margin = margin
        self._mapping = asyncio.ensure_future(self._learn_mapping())
        self._filtering = asyncio.ensure_future(self._learn_filtering())

    async def facts(self) -> Nat:
        """What is known by now; waits for the mapping only."""
        mapping = await asyncio.shield(self._mapping)
        done = self._filtering.done() and not self._filtering.cancelled()
        return Nat(mapping, self._filtering.result() if done else Filtering.UNKNOWN)

    async def everything(self) -> Nat:
        """The same, and waits for the filtering, too: a second where it is silence that tells."""
        await asyncio.wait([self._filtering])
        return await self.facts()

    async def close(self) -> None:
        for task in (self._mapping, self._filtering):
            task.cancel()
        await asyncio.gather(self._mapping, self._filtering, return_exceptions=True)

    async def _learn_mapping(self) -> Mapping:
        """Section 4.3: the same port, asked from another address."""
        if self.without_nat:
            return Mapping.NONE
        try:
            async with own_timeout(SECOND_OPINION):
                second = self._response.other
                # What it names is asked by us: not where no such server could be.
                if (
                    second is None
                    or second.host == self._server.host
                    or not believable(second, self._server)
                ):
                    second = await self._other_server()
                answer, sock = await tcp_binding(second, self.local.port)
        except (OSError, stun.StunError, EOFError, TimeoutError):
            return Mapping.UNKNOWN
        sock.close()
        if not believable(answer.mapped, second):
            return Mapping.UNKNOWN
        same = answer.mapped == self._response.mapped
        return Mapping.INDEPENDENT if same else Mapping.DEPENDENT

    async def _learn_filtering(self) -> Filtering:
        """Section 4.4: a mapping made towards one address, answered from another.

        Over UDP, as there is nothing else; a NAT that lets in anybody does so for both.
        """
        if self._response.other is None:
            return Filtering.UNKNOWN  # the server has no other address to answer from
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.connect(tuple(self._server))
                loop = asyncio.get_running_loop()
                started = loop.time()
                if not await _udp_answer(sock, stun.binding_request, SECOND_OPINION):
                    return Filtering.UNKNOWN
                patience = (loop.time() - started) * ROUND_TRIPS + self._margin
                port = sock.getsockname()[1]
            # The answer comes from another address: a socket that is not connected must take it.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anyone:
                anyone.setblocking(False)
                anyone.bind(("0.0.0.0", port))
                came = await _udp_answer(anyone, stun.change_request, patience, self._server)
        except OSError:
            return Filtering.UNKNOWN  # no descriptor, or somebody else has the port by now
        return Filtering.INDEPENDENT if came else Filtering.DEPENDENT


async def _udp_answer(
    sock: socket.socket,
    request: Callable[[bytes], bytes],
    patience: float,
    server: TransportAddress | None = None,
) -> bool:
    """Sends a request up to `TRIES` times; whether any answer came."""
    loop = asyncio.get_running_loop()
    ids = set()
    for _ in range(TRIES):
        transaction_id = os.urandom(12)
        ids.add(transaction_id)
        message = request(transaction_id)
        if server is None:
            sock.send(message)
        else:
            sock.sendto(message, tuple(server))
        try:
            async with asyncio.timeout(patience):
                while True:
                    answer = await loop.sock_recv(sock, stun.MAX_MESSAGE)
                    if answer[8:20] in ids:
                        return True
        except TimeoutError:
            if _has_come(sock, ids):
                return True
    return False


def _has_come(sock: socket.socket, ids: set[bytes]) -> bool:
    """Whether an answer lies there unread: it came while this process stood still."""
    try:
        while sock.recv(stun.MAX_MESSAGE)[8:20] not in ids:
            continue
    except OSError:
        return False  # nothing more is there
    return True


async def tcp_binding(
    address: TransportAddress, port: int
) -> tuple[stun.BindingResponse, socket.socket]:
    """One binding request over TCP from a local port; the connection stays open."""
    loop = asyncio.get_running_loop()
    sock = sockets.punching_socket(port)
    try:
        await _connect(sock, address)
        transaction_id = os.urandom(12)
        await loop.sock_sendall(sock, stun.binding_request(transaction_id))
        buffer = b""
        while (length := stun.message_length(buffer)) is None or len(buffer) < length:
            chunk = await loop.sock_recv(sock, stun.MAX_MESSAGE)
            if not chunk:
                raise EOFError("closed the connection without an answer")
            buffer += chunk
        return stun.parse_response(buffer[:length], transaction_id), sock
    except BaseException:
        sock.close()
        raise


async def _connect(sock: socket.socket, address: TransportAddress) -> None:
    """As loop.sock_connect, which asks a resolver even for an address, in a thread of a pool."""
    loop = asyncio.get_running_loop()
    error = sockets.start_connect(sock, address, None, 0)
    if not error:
        settled: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            loop.remove_writer(sock)  # it stays writable
            if not settled.done():
                settled.set_result(None)

        loop.add_writer(sock, settle)
        try:
            await settled
        finally:
            loop.remove_writer(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))
