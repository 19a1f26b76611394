"""Greetings: who is let in, and who is not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.config import Security
from punchlib.core.handshake import (
    CONFIRMATION_SIZE,
    GREETING_SIZE,
    MAGIC,
    Greeter,
    Identity,
    Terms,
    hkdf,
)
from punchlib.errors import PeerNotVerified, WireMismatch

SENDER = Terms("job/k1", True, "0a" * 8, "1b" * 8, Security.AUTHENTICATED, b"secret")
RECEIVER = Terms("job/k1", False, "1b" * 8, "0a" * 8, Security.AUTHENTICATED, b"secret")


def greet(sending: Terms, receiving: Terms) -> None:
    """One whole exchange."""
    sender, receiver = Greeter(sending), Greeter(receiving)
    receiver.verify(sender.greeting())
    sender.verify(receiver.greeting())
    receiver.verify_confirmation(sender.confirmation())


@pytest.mark.parametrize("job_key", [b"", b"secret"])
def test_two_ends_of_one_attempt_meet(job_key: bytes) -> None:
    greet(
        dataclasses.replace(SENDER, job_key=job_key), dataclasses.replace(RECEIVER, job_key=job_key)
    )


def test_the_bytes_are_as_documented() -> None:
    said = Greeter(SENDER, nonce=b"n" * 32).greeting()
    assert len(said) == GREETING_SIZE == 128
    assert said[:16] == b"\x93punch\r\n" + b"\x02\x01" + bytes(6)
    assert said[16:32].hex() == SENDER.my_side + SENDER.peer_side
    assert said[32:96] == b"n" * 32 + bytes(32)
    assert len(Greeter(SENDER).confirmation()) == CONFIRMATION_SIZE
    assert any(said[:8])  # not an old receiver's zeros
    assert said[0] != 0x16  # not TLS


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"job_key": b"another"}, "does not know the key"),
        ({"job_key": b""}, "does not know the key"),
        ({"key": "job/k2"}, "does not know the key"),
        ({"my_side": "2c" * 8}, "greets from side 2c"),
        ({"peer_side": "2c" * 8}, "to side 2c"),
    ],
)
def test_whoever_differs_is_refused_by_both(change: dict[str, Any], says: str) -> None:
    other = dataclasses.replace(SENDER, **change)
    with pytest.raises(PeerNotVerified, match=says):
        Greeter(RECEIVER).verify(Greeter(other).greeting())
    other = dataclasses.replace(RECEIVER, **change)
    with pytest.raises(PeerNotVerified, match=says):
        Greeter(SENDER).verify(Greeter(other).greeting())


def test_two_senders_are_told_what_is_wrong() -> None:
    with pytest.raises(PeerNotVerified, match="both ends speak as the sender"):
        Greeter(SENDER).verify(Greeter(SENDER).greeting())
    with pytest.raises(PeerNotVerified, match="both ends speak as the receiver"):
        Greeter(RECEIVER).verify(Greeter(RECEIVER).greeting())


def test_a_replayed_sender_cannot_confirm() -> None:
    """Its greeting is genuine, even of this very attempt; the receiver's nonce is new."""
    genuine = Greeter(SENDER)
    recorded = genuine.greeting()
    first, second = Greeter(RECEIVER), Greeter(RECEIVER)
    first.verify(recorded)
    genuine.verify(first.greeting())
    confirmation = genuine.confirmation()
    second.verify(recorded)
    second.greeting()
    with pytest.raises(PeerNotVerified, match="replay"):
        second.verify_confirmation(confirmation)
    first.verify_confirmation(confirmation)


def test_a_replayed_receiver_answers_another_nonce() -> None:
    receiver = Greeter(RECEIVER)
    receiver.verify(Greeter(SENDER).greeting())
    with pytest.raises(PeerNotVerified, match="another greeting than ours"):
        Greeter(SENDER).verify(receiver.greeting())


@given(st.integers(0, GREETING_SIZE * 8 - 1))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    said = bytearray(Greeter(SENDER, nonce=b"n" * 32).greeting())
    said[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PeerNotVerified):
        Greeter(RECEIVER).verify(bytes(said))


@given(st.binary(min_size=1, max_size=GREETING_SIZE + 10))
def test_any_bytes_are_refused_with_a_typed_error(said: bytes) -> None:
    if MAGIC.startswith(said):
        Greeter(RECEIVER).verify(said)  # may still become a greeting
    else:
        with pytest.raises(PeerNotVerified):
            Greeter(RECEIVER).verify(said)


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (b"\x00", "an old .v1. peer"),
        (bytes(128), "an old .v1. peer"),
        (b"\x16\x03\x01", "TLS"),
        (b"GET / HT", "got b'GET / HT'"),
        (MAGIC + b"\x03", "version 2, got version 3"),
    ],
)
def test_other_protocols_are_named_at_their_first_bytes(said: bytes, says: str) -> None:
    with pytest.raises(WireMismatch, match=says):
        Greeter(SENDER).verify(said)


def test_hkdf_against_rfc_5869() -> None:
    """Appendix A, test cases 1 and 3."""
    assert (
        hkdf(b"\x0b" * 22, bytes(range(0xF0, 0xFA)), salt=bytes(range(13)), size=42).hex()
        == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    assert (
        hkdf(b"\x0b" * 22, b"", salt=b"", size=42).hex()
        == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


def test_secrets_do_not_show() -> None:
    identity = Identity.generate()
    shown = repr(dataclasses.replace(SENDER, my_identity=identity))
    assert "secret" not in shown
    assert "PRIVATE" not in shown


def test_both_ends_name_a_connection_alike() -> None:
    assert SENDER.server_name == RECEIVER.server_name == f"{'0a' * 8}.{'1b' * 8}.punch"
