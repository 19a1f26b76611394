"""Learning the mapped address of a punching port, and how our NAT maps.

STUN runs over TCP, from the punching port itself: a NAT maps TCP and UDP independently, and what
counts is the mapping of this very port. UDP (pystun3) is the fallback where no server answers
over TCP; it tells the public address for sure, and the port where the NAT preserves ports.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import stun as pystun

from punchlib.core import stun
from punchlib.core.candidates import TransportAddress, believable
from punchlib.core.records import Nat
from punchlib.net import sockets
from punchlib.net.nat_observer import NatObserver, tcp_binding
from punchlib.net.own_time import own_timeout

#: Seconds: the next server is asked as well when the one before has not answered by then.
SERVER_STAGGER = 0.5
#: Seconds for a binding that keeps a mapping, and between two that fail.
KEEP_PAUSE = 2.0
#: Seconds that UDP is given, the last part of the whole time-out.
UDP_SHARE = 2.5


@dataclass
class PunchPort:
    """One local port from which one connection is punched.

    Attributes:
        local: our own address and the port.
        mapped: what the NAT makes of it; None when no STUN server told.
        keeper: the connection to the STUN server. While it is open, the NAT keeps the mapping.
        anchor: holds the port while no keeper does. One descriptor is enough for a port.
    """

    local: TransportAddress
    mapped: TransportAddress | None
    keeper: socket.socket | None = None
    anchor: socket.socket | None = None

    def close(self) -> None:
        for sock in (self.keeper, self.anchor):
            if sock is not None:
                sock.close()
        self.keeper = self.anchor = None


#: Who was asked, what it said, and the connection.
Answer: TypeAlias = tuple[TransportAddress, stun.BindingResponse, socket.socket]


class StunUnreachableError(Exception):
    """No server told our address; the text says what each one did."""


class StunClient:
    """Asks STUN servers; shared by all connections of a process.

    Args:
        servers: host names or addresses with ports, in order of preference.
        timeout: seconds for one mapping, over all servers.
        public_ip: when given, no server is asked: the NAT is taken for a 1:1 one.
    """

    def __init__(
        self,
        servers: Sequence[tuple[str, int]],
        timeout: float,
        public_ip: str | None = None,
    ) -> None:
        self.servers = tuple(servers)
        self.timeout = timeout
        self.public_ip = public_ip
        self.failures: list[str] = []
        self._resolved: dict[tuple[str, int], asyncio.Task[TransportAddress]] = {}
        self._preferred = 0
        self._observer: NatObserver | None = None

    async def open_port(self) -> PunchPort:
        """Opens a fresh punching port and learns its mapping.

        Never fails for the servers' sake: `mapped` is None then, and `failures` says why.
        """
        anchor = sockets.punching_socket()
        port = int(anchor.getsockname()[1])
        try:
            return await self._open_port(anchor, port)
        except BaseException:
            anchor.close()
            raise

    async def _open_port(self, anchor: socket.socket, port: int) -> PunchPort:
        if self._observer is not None and self._observer.without_nat:
            # No NAT: a port's mapping is the port itself, and nobody needs to be asked again.
            local = TransportAddress(self._observer.local.host, port)
            return PunchPort(local, local, None, anchor)
        if self.public_ip is not None:
            mine = sockets.host_address(TransportAddress(self.public_ip, 9)) or "127.0.0.1"
            mapped = TransportAddress(self.public_ip, port)
            return PunchPort(TransportAddress(mine, port), mapped, None, anchor)
        failures: list[str] = []
        try:
            async with own_timeout(self.timeout):
                try:
                    async with own_timeout(max(self.timeout - UDP_SHARE, self.timeout / 2)):
                        mapped, keeper = await self._over_tcp(port, failures)
                except TimeoutError:
                    failures.append("TCP: no answer in time")
                else:
                    local = TransportAddress(keeper.getsockname()[0], port)
                    if self._observer is not None and self._observer.without_nat:
                        keeper.close()  # there is no mapping to keep
                        return PunchPort(local, mapped, None, anchor)
                    anchor.close()
                    return PunchPort(local, mapped, keeper)
                mapped = await self._over_udp(port, failures)
                mine = sockets.host_address(mapped) or "127.0.0.1"
                return PunchPort(TransportAddress(mine, port), mapped, None, anchor)
        except TimeoutError:
            failures.append("UDP: no answer in time")
        except StunUnreachableError:
            pass
        self.failures = failures
        mine = sockets.host_address(sockets.SOMEWHERE) or "127.0.0.1"
        return PunchPort(TransportAddress(mine, port), None, None, anchor)

    async def _over_tcp(
        self, port: int, failures: list[str]
    ) -> tuple[TransportAddress, socket.socket]:
        """Asks one server after the other, each with a head start over the next."""
        running: dict[asyncio.Task[Answer], int] = {}
        order = [(self._preferred + n) % len(self.servers) for n in range(len(self.servers))]
        try:
            while order or running:
                if order:
                    n = order.pop(0)
                    running[asyncio.create_task(self._ask_tcp(self.servers[n], port))] = n
                done, _ = await asyncio.wait(
                    running,
                    timeout=SERVER_STAGGER if order else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    n = running.pop(task)
                    try:
                        asked, response, keeper = task.result()
                    except (OSError, stun.StunError, EOFError) as exc:
                        failures.append(f"{_name(self.servers[n])} over TCP: {exc}")
                        continue
                    self._preferred = n
                    self._observe(asked, keeper, response)
                    return response.mapped, keeper
        finally:
            await _reap(list(running))
        # Nothing over TCP: UDP may still tell.
        raise TimeoutError

    def _observe(
        self, asked: TransportAddress, keeper: socket.socket, response: stun.BindingResponse
    ) -> None:
        # The server may have closed the connection since: it no longer says whose it was.
        if self._observer is None:
            local = TransportAddress(*keeper.getsockname()[:2])
            others = [s for n, s in enumerate(self.servers) if n != self._preferred]
            self._observer = NatObserver(
                local, asked, response, functools.partial(self._resolve, *others[:1])
            )

    async def keep(self, port: PunchPort) -> None:
        """Keeps a port's mapping alive; returns when the NAT has given it another one.

        Servers close a STUN connection after some seconds, used or not, and the NAT forgets it
        soon after; the next connection from the port then gets a new mapping where ports are not
        preserved. So each close is answered by another binding from the same port, at once.
        """
        loop = asyncio.get_running_loop()
        while port.keeper is not None:
            with contextlib.suppress(OSError):
                while await loop.sock_recv(port.keeper, stun.MAX_MESSAGE):
                    continue
            server = self.servers[self._preferred]
            try:
                if port.anchor is None:
                    port.anchor = sockets.punching_socket(port.local.port)
                port.keeper.close()
                async with asyncio.timeout(KEEP_PAUSE):
                    _, response, port.keeper = await self._ask_tcp(server, port.local.port)
            except (OSError, stun.StunError, EOFError, TimeoutError):
                await asyncio.sleep(KEEP_PAUSE)
                continue
            port.anchor.close()
            port.anchor = None
            if response.mapped != port.mapped:
                return
        await loop.create_future()

    async def nat(self) -> Nat:
        """What is known of our NAT; waits for the mapping's behaviour, but not for more."""
        if self._observer is None:
            return Nat()
        return await self._observer.facts()

    async def close(self) -> None:
        if self._observer is not None:
            await self._observer.close()

    async def _ask_tcp(self, server: tuple[str, int], port: int) -> Answer:
        address = await self._resolve(server)
        response, keeper = await tcp_binding(address, port)
        if not believable(response.mapped, address):
            keeper.close()
            raise stun.StunError(_lie(response.mapped))
        return address, response, keeper

    async def _resolve(self, *servers: tuple[str, int]) -> TransportAddress:
        """The address of a server.

        Raises:
            OSError: its name cannot be resolved, or there is none.
        """
        if not servers:
            raise OSError("no other STUN server")
        (server,) = servers
        with contextlib.suppress(ValueError):
            # An address needs no resolver, and none of its threads.
            return TransportAddress(str(ipaddress.IPv4Address(server[0])), server[1])

        async def resolve() -> TransportAddress:
            found = await asyncio.get_running_loop().getaddrinfo(
                *server, family=socket.AF_INET, type=socket.SOCK_STREAM
            )
            return TransportAddress(*found[0][4][:2])

        task = self._resolved.get(server)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._resolved[server] = asyncio.create_task(resolve())
        return await asyncio.shield(task)

    async def _over_udp(self, port: int, failures: list[str]) -> TransportAddress:
        loop = asyncio.get_running_loop()
        for server in self.servers:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                sock.settimeout(0.5)
                with contextlib.suppress(OSError):
                    sock.bind(("", port))
                address = await self._resolve(server)
                answer = await loop.run_in_executor(None, _ask_udp, sock, address)
            except OSError as exc:
                failures.append(f"{_name(server)} over UDP: {exc}")
                continue
            finally:
                # Ends the thread too, when we were cancelled.
                sock.close()
            if answer is not None and believable(answer, address):
                return answer
            problem = _lie(answer) if answer else "no usable answer"
            failures.append(f"{_name(server)} over UDP: {problem}")
        raise StunUnreachableError


def _name(server: tuple[str, int]) -> str:
    return f"{server[0]}:{server[1]}"


def _lie(mapped: TransportAddress) -> str:
    return f"it says that we are at {mapped}, where it cannot have seen us"


def _ask_udp(sock: socket.socket, address: TransportAddress) -> TransportAddress | None:
    pystun._initialize()
    give_up = time.monotonic() + UDP_SHARE
    while time.monotonic() < give_up:
        try:
            answer = pystun.stun_test(sock, address.host, address.port, "", 0)
        except (KeyError, ValueError, IndexError):
            # pystun3 does not check what it parses: this answer was garbage.
            continue
        if not answer["Resp"] or answer["ExternalIP"] is None:
            return None
        return TransportAddress(answer["ExternalIP"], answer["ExternalPort"])
    return None


async def _reap(tasks: list[asyncio.Task[Answer]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, tuple):
            result[2].close()
