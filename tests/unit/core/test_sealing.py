"""An object of the S3 route fits in one place only."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.config import Security
from punchlib.core.handshake import Identity, Terms
from punchlib.core.sealing import Sealer
from punchlib.errors import StreamBroken

IDENTITIES = [Identity.generate() for _ in range(3)]
FRAMES = b"\x50\x00\x00\x71" * 9


def terms(
    security: Security, *, job_key: bytes = b"job", key: str = "k", sides: str = "01"
) -> tuple[Terms, Terms]:
    """The sender's, the receiver's."""
    a, b = (side * 16 for side in sides)
    one = Terms(key, True, a, b, security, job_key, IDENTITIES[0], IDENTITIES[1].cert_der)
    return one, Terms(key, False, b, a, security, job_key, IDENTITIES[1], IDENTITIES[0].cert_der)


def both(pair: tuple[Terms, Terms]) -> tuple[Sealer, Sealer]:
    """The sender's writing end, the receiver's reading end."""
    return Sealer(pair[0], outgoing=True), Sealer(pair[1], outgoing=False)


SECURITIES = pytest.mark.parametrize("security", Security)


@SECURITIES
@given(st.integers(0, 2**40), st.binary(max_size=400))
def test_what_was_sealed_comes_back(security: Security, number: int, frames: bytes) -> None:
    writer, reader = both(terms(security))
    sealed = writer.seal(number, frames)
    assert reader.open(number, sealed) == frames


@SECURITIES
def test_every_changed_bit_and_every_cut_is_noticed(security: Security) -> None:
    writer, reader = both(terms(security))
    sealed = writer.seal(7, FRAMES)
    assert (FRAMES in sealed) == (security is Security.AUTHENTICATED)
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StreamBroken, match="object 7 of the S3 route is not what the peer"):
            reader.open(7, bytes(changed))
    for cut in (*(sealed[:n] for n in range(len(sealed))), sealed + b"\0", sealed + sealed):
        with pytest.raises(StreamBroken):
            reader.open(7, cut)


@SECURITIES
@pytest.mark.parametrize(
    "other",
    [
        {"job_key": b"another"},
        {"job_key": b""},
        {"key": "k2"},
        {"sides": "02"},
        {"sides": "21"},
        {"sides": "10"},
    ],
    ids=str,
)
def test_of_another_place_nothing_is_taken(security: Security, other: dict[str, str]) -> None:
    """Another job, another stream, an earlier attempt."""
    sealed = both(terms(security, **other))[0].seal(3, FRAMES)  # type: ignore[arg-type]
    with pytest.raises(StreamBroken):
        both(terms(security))[1].open(3, sealed)


@SECURITIES
def test_exchanged_replayed_or_turned_round(security: Security) -> None:
    sender, receiver = terms(security)
    writer, reader = both((sender, receiver))
    sealed = writer.seal(3, FRAMES)
    for number in (0, 2, 4, 3 + 2**32):
        with pytest.raises(StreamBroken):
            reader.open(number, sealed)
    with pytest.raises(StreamBroken):  # our own, read back as the peer's
        Sealer(sender, outgoing=False).open(3, sealed)


def test_the_securities_are_not_taken_for_each_other() -> None:
    sealed = both(terms(Security.AUTHENTICATED))[0].seal(0, FRAMES)
    with pytest.raises(StreamBroken):
        both(terms(Security.ENCRYPTED))[1].open(0, sealed)


def test_without_a_job_key_the_certificates_still_encrypt() -> None:
    """Who knows KEY and both certificates, as every reader of the table does, is not enough."""
    sender, receiver = terms(Security.ENCRYPTED, job_key=b"")
    writer, reader = both((sender, receiver))
    sealed = writer.seal(0, FRAMES)
    assert reader.open(0, sealed) == FRAMES
    stranger = dataclasses.replace(receiver, my_identity=IDENTITIES[2])
    with pytest.raises(StreamBroken):
        Sealer(stranger, outgoing=False).open(0, sealed)
