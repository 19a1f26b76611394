"""The STUN codec, with aioice's as the oracle."""

import ipaddress
import os

import pytest
from aioice import stun as oracle
from hypothesis import given
from hypothesis import strategies as st

from punchlib.core import stun
from punchlib.core.candidates import TransportAddress

ids = st.binary(min_size=12, max_size=12)
addresses = st.builds(
    TransportAddress,
    st.integers(1, 2**32 - 1).map(lambda n: str(ipaddress.IPv4Address(n))),
    st.integers(1, 65535),
)


@given(ids)
def test_the_oracle_reads_our_request(transaction_id: bytes) -> None:
    message = oracle.parse_message(stun.binding_request(transaction_id))
    assert message.message_method == oracle.Method.BINDING
    assert message.message_class == oracle.Class.REQUEST
    assert message.transaction_id == transaction_id


@given(ids, addresses)
def test_we_read_the_oracles_response(transaction_id: bytes, mapped: TransportAddress) -> None:
    message = oracle.Message(oracle.Method.BINDING, oracle.Class.RESPONSE, transaction_id)
    message.attributes["SOFTWARE"] = "odd"  # padded attribute before the one we want
    message.attributes["XOR-MAPPED-ADDRESS"] = tuple(mapped)
    assert stun.parse_response(bytes(message), transaction_id).mapped == mapped


@given(ids, addresses)
def test_the_oracle_reads_our_response(transaction_id: bytes, mapped: TransportAddress) -> None:
    message = oracle.parse_message(stun.binding_success(transaction_id, mapped))
    assert message.attributes["XOR-MAPPED-ADDRESS"] == tuple(mapped)
    assert stun.parse_response(bytes(message), transaction_id).mapped == mapped


def test_an_error_response_says_what_the_server_said() -> None:
    message = oracle.Message(oracle.Method.BINDING, oracle.Class.ERROR, b"x" * 12)
    message.attributes["ERROR-CODE"] = (420, "Unknown Attribute")
    with pytest.raises(stun.StunError, match="420: Unknown Attribute"):
        stun.parse_response(bytes(message), b"x" * 12)


def test_the_answer_to_another_request_is_refused() -> None:
    answer = stun.binding_success(b"a" * 12, TransportAddress("10.0.0.1", 7))
    with pytest.raises(stun.StunError, match="another request"):
        stun.parse_response(answer, b"b" * 12)


def test_length_is_known_from_the_header_on() -> None:
    answer = stun.binding_success(os.urandom(12), TransportAddress("10.0.0.1", 7))
    for n in range(20):
        assert stun.message_length(answer[:n]) is None
    assert stun.message_length(answer[:20]) == len(answer)


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n", b"\xff" * 40, b"\x00" * 20])
def test_other_protocols_are_no_stun(garbage: bytes) -> None:
    with pytest.raises(stun.StunError):
        stun.message_length(garbage)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_stun_error(data: bytes) -> None:
    header = stun.HEADER.pack(stun.BINDING_SUCCESS, len(data), stun.MAGIC_COOKIE, b"i" * 12)
    for message in (data, header + data):
        try:
            stun.parse_response(message, b"i" * 12)
            stun.parse_request(message)
        except stun.StunError:
            continue
