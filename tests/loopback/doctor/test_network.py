"""Looks through real sockets: coturn, a port that nobody has, servers that lie or say nothing."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from punchlib.config import Config
from punchlib.core.records import Filtering, Mapping, Nat
from punchlib.doctor import nat_words, network
from punchlib.doctor.finding import Level
from punchlib.doctor.network import ARRIVED, LADDER, View
from punchlib.local import stun_server
from tests.loopback.net.test_stun_client import Answer, garbage, metadata_service, server, silence
from tests.support.coturn import coturn
from tests.support.ministack import free_port


@pytest.fixture(scope="module")
def stun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    with coturn(tmp_path_factory.mktemp("coturn")) as address:
        yield address


def look(*servers: tuple[str, int]) -> View:
    return asyncio.run(network.look(Config(stun_servers=servers)))


def test_a_server_that_is_well(stun: tuple[str, int]) -> None:
    view = look(stun)
    assert [a.trouble for a in (*view.tcp, *view.udp)] == ["", ""]
    assert view.tcp[0].ms > 0
    assert len(view.ports) == network.PORTS
    assert all(local == mapped for local, mapped in view.ports)
    assert view.nat == Nat(Mapping.NONE, Filtering.INDEPENDENT)
    assert view.classic == "Open Internet"
    assert view.syns == dict.fromkeys(LADDER, ARRIVED)
    assert {f.level for f in nat_words.findings(view, Config())} == {Level.OK}


def test_one_of_two_is_dead(stun: tuple[str, int]) -> None:
    view = look(("127.0.0.1", free_port()), stun)
    assert [bool(a.trouble) for a in view.tcp] == [True, False]
    found = {f.name: f for f in nat_words.findings(view, Config())}
    assert found["STUN over TCP"].level is Level.WARN
    assert "Connection refused" in found["STUN over TCP"].what
    assert found["mapping"].level is Level.OK


def test_all_are_dead() -> None:
    """Refused, silent, and a name that is none: a few seconds, and three lines."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        started = time.monotonic()
        view = look(("127.0.0.1", free_port()), mute.getsockname(), ("no.such.invalid", 3478))
        took = time.monotonic() - started
    assert took < 20
    assert all(a.trouble for a in (*view.tcp, *view.udp))
    assert "no answer within 3 s" in view.tcp[1].trouble
    found = list(nat_words.findings(view, Config()))
    assert [(f.name, f.level) for f in found] == [
        ("STUN over TCP", Level.FAIL),
        ("STUN over UDP", Level.WARN),
        ("NAT", Level.WARN),
    ]


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (garbage, "not a STUN message"),
        (metadata_service, "169.254.169.254"),
        (silence, "no answer within 3 s"),
    ],
)
def test_a_server_that_lies(answer: Answer, trouble: str) -> None:
    async def main() -> View:
        async with server(answer) as bad:
            return await network.look(Config(stun_servers=(bad,)))

    view = asyncio.run(main())
    assert trouble in view.tcp[0].trouble
    assert view.ports == ()


def test_a_server_of_one_address_tells_no_filtering() -> None:
    """Our own: as most in the world, it answers from where it was asked."""

    async def main() -> View:
        listener = socket.create_server(("127.0.0.1", 0))
        datagrams = socket.socket(type=socket.SOCK_DGRAM)
        datagrams.bind(listener.getsockname())
        serving = asyncio.create_task(stun_server.serve([listener, datagrams]))
        try:
            return await network.look(Config(stun_servers=(listener.getsockname(),)))
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    view = asyncio.run(main())
    assert view.nat == Nat(Mapping.NONE, Filtering.UNKNOWN)
    assert view.classic == ""
    found = {f.name: f for f in nat_words.findings(view, Config())}
    assert found["filtering"].level is Level.WARN
    assert "no RFC 3489 name" in found["STUN over UDP"].what
