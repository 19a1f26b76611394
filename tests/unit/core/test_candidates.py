"""Addresses as they stand in records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.config import Route
from punchlib.core.candidates import (
    Candidate,
    CandidatePair,
    CandidateType,
    TransportAddress,
    believable,
    usable_host_address,
)


@given(st.ip_addresses(v=4).map(str), st.integers(1, 65535))
def test_an_address_comes_back(host: str, port: int) -> None:
    address = TransportAddress(host, port)
    assert TransportAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text", ["", "1.2.3.4", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3:4", "a:1", "::1:1", "1.2.3.4:²"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError):
        TransportAddress.parse(text)


@given(st.text())
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        TransportAddress.parse(text)
    except ValueError:
        return
    assert TransportAddress.parse(str(TransportAddress.parse(text)))


@pytest.mark.parametrize(
    ("host", "usable"),
    [
        ("10.0.0.1", True),
        ("192.0.2.1", True),
        ("127.0.0.1", True),
        ("169.254.76.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
    ],
)
def test_which_of_our_addresses_a_peer_could_reach(host: str, usable: bool) -> None:
    assert usable_host_address(host) is usable


@pytest.mark.parametrize(
    ("server", "mapped", "is_believed"),
    [
        ("203.0.113.7", "198.51.100.4", True),
        ("203.0.113.7", "10.0.0.4", False),
        ("203.0.113.7", "100.64.0.4", False),
        ("203.0.113.7", "127.0.0.1", False),
        ("203.0.113.7", "169.254.169.254", False),
        ("203.0.113.7", "224.0.0.1", False),
        ("203.0.113.7", "0.0.0.0", False),
        ("203.0.113.7", "255.255.255.255", False),
        ("10.0.0.9", "10.0.0.4", True),
        ("10.0.0.9", "198.51.100.4", True),
        ("10.0.0.9", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "10.0.0.4", True),
    ],
)
def test_what_a_stun_server_can_have_seen(server: str, mapped: str, is_believed: bool) -> None:
    addresses = TransportAddress(mapped, 4711), TransportAddress(server, 3478)
    assert believable(*addresses) is is_believed


def test_the_route_of_a_pair() -> None:
    address = TransportAddress("192.0.2.1", 1)
    routes = [
        CandidatePair(None, Candidate(kind, address)).route
        for kind in (CandidateType.HOST, CandidateType.SRFLX)
    ]
    assert routes == [Route.HOST, Route.PUNCHED]
