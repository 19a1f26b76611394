"""What a server says of our NAT is believed as far as it can be true."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from punchlib.core import stun
from punchlib.core.candidates import TransportAddress
from punchlib.core.records import Filtering, Mapping, Nat
from punchlib.net.nat_observer import NatObserver
from tests.loopback.net.test_stun_client import Answer, honest, metadata_service, server
from tests.support.ministack import free_port

NOWHERE = TransportAddress("169.254.169.254", 80)


async def _mapping(answer: Answer, other: TransportAddress | None) -> tuple[Mapping, list[str]]:
    """What is learned with the help of a second server; and whether that one was looked for."""
    asked: list[str] = []
    local = TransportAddress("127.0.0.1", free_port())
    async with server(answer) as second:

        async def other_server() -> TransportAddress:
            asked.append("other server")
            return TransportAddress(*second)

        # Seen elsewhere than where we are: else there is no NAT to look at.
        first = stun.BindingResponse(TransportAddress("127.0.0.9", local.port), other)
        observer = NatObserver(local, TransportAddress("127.0.0.1", 1), first, other_server)
        try:
            return (await observer.facts()).mapping, asked
        finally:
            await observer.close()


def run(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(main())  # type: ignore[arg-type]


@pytest.mark.parametrize("other", [None, NOWHERE, TransportAddress("224.0.0.1", 3478)])
def test_a_second_address_where_no_server_can_be_is_not_asked(
    other: TransportAddress | None,
) -> None:
    async def main() -> None:
        mapping, asked = await _mapping(honest, other)
        assert asked == ["other server"]
        assert mapping is Mapping.DEPENDENT

    run(main)


def test_a_second_server_that_lies_says_nothing_of_our_nat() -> None:
    async def main() -> None:
        mapping, _ = await _mapping(metadata_service, None)
        assert mapping is Mapping.UNKNOWN

    run(main)


async def _nobody() -> TransportAddress:
    raise AssertionError("another server is asked for")


def test_a_port_that_somebody_else_has_got_says_nothing_of_our_nat() -> None:
    """It was an error of every connection of the process, for as long as it lived."""

    async def main() -> None:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief,
        ):
            server.bind(("127.0.0.1", 0))
            server.setblocking(False)

            def answer() -> None:
                request, asker = server.recvfrom(stun.MAX_MESSAGE)
                if not thief.getsockname()[1]:
                    thief.bind(("127.0.0.2", asker[1]))
                server.sendto(request, asker)  # whose identifier is all that is looked at

            asyncio.get_running_loop().add_reader(server, answer)
            here = TransportAddress("127.0.0.1", 1)
            first = stun.BindingResponse(here, TransportAddress("127.0.0.2", 9))
            asked = TransportAddress(*server.getsockname())
            observer = NatObserver(here, asked, first, _nobody)
            assert await observer.everything() == Nat(Mapping.NONE, Filtering.UNKNOWN)
            assert thief.getsockname()[1]
            await observer.close()

    run(main)
