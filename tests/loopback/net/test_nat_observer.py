"""What a server says of our NAT is believed as far as it can be true."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from punchlib.core import stun
from punchlib.core.candidates import TransportAddress
from punchlib.core.records import Mapping
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
