"""Looks at the network between this machine and the Internet; what it means, `nat_words` says.

Everything is asked of the STUN servers that streams use, from ports opened as streams open theirs:
over TCP (RFC 8489), the mapping and the filtering as RFC 5780 sections 4.3 and 4.4 have it, and
over UDP, there also as the classic STUN of RFC 3489 section 10.1 does (pystun3).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import stun as pystun

from punchlib.config import Config
from punchlib.core import stun
from punchlib.core.candidates import TransportAddress, believable
from punchlib.core.records import Nat
from punchlib.net import sockets
from punchlib.net.nat_observer import NatObserver, tcp_binding

#: Seconds for one server to answer; a good one takes a round trip or two.
PATIENCE = 3.0
#: UDP has no retransmission of its own: the request goes out so often, at these pauses in seconds.
UDP_PAUSES = (0.3, 0.6, 1.2)
#: Seconds of silence, beyond the round trips, before a person is told that the NAT filters.
SURE = 0.5
#: Ports that are opened at once, to see whether the NAT keeps their numbers and one address.
PORTS = 4
#: The hold's ladder (docs/nat-traversal.md, "Hold and dial").
LADDER = (2, 3, 4, 5, 6)
#: Seconds: after one the kernel would send the SYN again, with the normal TTL.
RUNG = 0.9
#: Seconds that one request of the classic algorithm is waited for; it asks each four times.
CLASSIC_WAIT = 0.25
CLASSIC = 6.0

#: What became of a SYN of a low TTL.
DIED, ARRIVED, SILENCE = "died", "arrived", "silence"


@dataclass(frozen=True)
class Answer:
    """What one server did when it was asked.

    Attributes:
        server: HOST:PORT.
        ms: how long its answer took, milliseconds; 0.0 where there was none.
        trouble: why there was none; "" where there was one.
    """

    server: str
    ms: float = 0.0
    trouble: str = ""


@dataclass(frozen=True)
class View:
    """What was seen.

    Attributes:
        tcp, udp: each server's answer.
        ports: of several ports, our end and what the NAT makes of it.
        nat: how it maps and filters.
        classic: RFC 3489's word for it, in pystun3's spelling; "" when it could not be had.
        syns: what became of a SYN, by its TTL.
    """

    tcp: tuple[Answer, ...]
    udp: tuple[Answer, ...]
    ports: tuple[tuple[TransportAddress, TransportAddress], ...] = ()
    nat: Nat = field(default=Nat())
    classic: str = ""
    syns: dict[int, str] = field(default_factory=dict)


async def look(config: Config) -> View:
    """Looks at everything, as much as possible at once; some seconds where servers are dead."""
    servers = config.stun_servers
    tcp, udp = await asyncio.gather(
        asyncio.gather(*(_asked(s, _over_tcp) for s in servers)),
        asyncio.gather(*(_asked(s, _over_udp) for s in servers)),
    )
    alive = [s for s, answer in zip(servers, tcp, strict=True) if not answer.trouble]
    over_udp = [s for s, answer in zip(servers, udp, strict=True) if not answer.trouble]
    classic = asyncio.create_task(_classic(over_udp))
    if not alive:
        return View(tuple(tcp), tuple(udp), classic=await classic)
    server = await _resolve(alive[0])
    ports, nat, syns, word = await asyncio.gather(
        _ports(server), _behaviour(server, alive[1:]), _ladder(server), classic
    )
    return View(tuple(tcp), tuple(udp), ports, nat, word, syns)


async def _asked(
    server: tuple[str, int], ask: Callable[[TransportAddress], Awaitable[TransportAddress]]
) -> Answer:
    name = f"{server[0]}:{server[1]}"
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PATIENCE):
            address = await _resolve(server)
            started = loop.time()
            mapped = await ask(address)
            took = loop.time() - started
    except TimeoutError:
        return Answer(name, trouble=f"no answer within {PATIENCE:g} s")
    except (OSError, stun.StunError, EOFError) as error:
        return Answer(name, trouble=getattr(error, "strerror", None) or str(error))
    if not believable(mapped, address):
        return Answer(name, trouble=f"it says that we are at {mapped}, where it cannot see us")
    return Answer(name, ms=took * 1000)


async def _resolve(server: tuple[str, int]) -> TransportAddress:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(*server, family=socket.AF_INET, type=socket.SOCK_STREAM)
    return TransportAddress(*found[0][4][:2])


async def _over_tcp(server: TransportAddress) -> TransportAddress:
    answer, sock = await tcp_binding(server, 0)
    sock.close()
    return answer.mapped


async def _over_udp(server: TransportAddress) -> TransportAddress:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(tuple(server))
        transaction_id = os.urandom(12)
        for pause in UDP_PAUSES:
            sock.send(stun.binding_request(transaction_id))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    message = await loop.sock_recv(sock, stun.MAX_MESSAGE)
                    return stun.parse_response(message, transaction_id).mapped
    raise OSError(errno.ETIMEDOUT, f"no answer to {len(UDP_PAUSES)} requests")


async def _ports(
    server: TransportAddress,
) -> tuple[tuple[TransportAddress, TransportAddress], ...]:
    """Several ports at once: all stay open until the last is known, as in a wide job."""

    async def one() -> tuple[TransportAddress, TransportAddress, socket.socket]:
        async with asyncio.timeout(PATIENCE):
            answer, sock = await tcp_binding(server, 0)
        return TransportAddress(*sock.getsockname()[:2]), answer.mapped, sock

    found = await asyncio.gather(*(one() for _ in range(PORTS)), return_exceptions=True)
    opened = [each for each in found if isinstance(each, tuple)]
    for _, _, sock in opened:
        sock.close()
    return tuple((local, mapped) for local, mapped, _ in opened)


async def _behaviour(server: TransportAddress, others: Sequence[tuple[str, int]]) -> Nat:
    async def other_server() -> TransportAddress:
        if not others:
            raise OSError("no other STUN server")
        return await _resolve(others[0])

    try:
        async with asyncio.timeout(PATIENCE):
            answer, sock = await tcp_binding(server, 0)
    except (OSError, stun.StunError, EOFError, TimeoutError):
        return Nat()
    with sock:
        local = TransportAddress(*sock.getsockname()[:2])
        observer = NatObserver(local, server, answer, other_server, SURE)
        try:
            return await observer.everything()
        finally:
            await observer.close()


async def _ladder(server: TransportAddress) -> dict[int, str]:
    """A SYN of each rung, towards a server that answers those of the normal TTL."""
    fates = await asyncio.gather(*(_rung(server, ttl) for ttl in LADDER))
    return dict(zip(LADDER, fates, strict=True))


async def _rung(server: TransportAddress, ttl: int) -> str:
    """EHOSTUNREACH is a router's "time exceeded" (ip(7)); with IP_MINTTL it would be hidden."""
    loop = asyncio.get_running_loop()
    with sockets.punching_socket() as sock:
        error = sockets.start_connect(sock, server, ttl, 0)
        if not error:
            settled = loop.create_future()

            def settle() -> None:
                loop.remove_writer(sock)
                if not settled.done():
                    settled.set_result(None)

            loop.add_writer(sock, settle)
            try:
                async with asyncio.timeout(RUNG):
                    await settled
            except TimeoutError:
                return SILENCE
            finally:
                loop.remove_writer(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return {0: ARRIVED, errno.ECONNREFUSED: ARRIVED, errno.EHOSTUNREACH: DIED}.get(error, SILENCE)


async def _classic(servers: Sequence[tuple[str, int]]) -> str:
    """RFC 3489's view; "" where no server does what it takes: most know one address only."""
    loop = asyncio.get_running_loop()
    for server in servers:
        with contextlib.suppress(OSError, TimeoutError):
            address = await _resolve(server)
            local = sockets.local_address(address)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(CLASSIC_WAIT)
                sock.bind((local, 0))
                async with asyncio.timeout(CLASSIC):
                    word = await loop.run_in_executor(None, _classic_word, sock, local, address)
            if word:
                return word
    return ""


def _classic_word(sock: socket.socket, local: str, server: TransportAddress) -> str:
    try:
        word, _ = pystun.get_nat_type(sock, local, sock.getsockname()[1], *server)
    except (KeyError, ValueError, IndexError, TypeError, OSError):
        # pystun3 checks neither what it parses nor whether the server has a second address.
        return ""
    return "" if word in (pystun.Blocked, pystun.ChangedAddressError) else str(word)
