"""The frame codec, and the order in which frames may come."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib import names
from punchlib.core.frames import (
    HEADER_SIZE,
    MAX_DATA,
    MAX_REASON,
    FrameType,
    Incoming,
    Outgoing,
    State,
    decode_cause,
    decode_header,
    decode_total,
    encode_cause,
    encode_header,
    encode_total,
)
from punchlib.errors import Cause, StreamBroken

D, E, A, S, P, X, F = (FrameType(number) for number in range(1, 8))
LIMITS = {
    D: (1, MAX_DATA),
    E: (8, 8),
    A: (8, 8),
    S: (0, 0),
    P: (0, 0),
    X: (0, MAX_REASON),
    F: (0, 0),
}


def with_check(word: int) -> bytes:
    """A header of any type and size, with the check byte that belongs to it (ITU-T I.432.1)."""
    rest = word << 8
    for shift in range(23, -1, -1):
        if rest >> shift + 8 & 1:
            rest ^= 0x107 << shift
    return (word << 8 | rest ^ 0x55).to_bytes(4, "big")


def test_the_bytes_are_as_documented() -> None:
    assert encode_header(D, 0xABCDE) == b"\x1a\xbc\xde\xd7"
    assert encode_header(P, 0) == b"\x50\x00\x00\x71"
    assert encode_total(0x0102030405060708) == bytes(range(1, 9))


@given(st.sampled_from(FrameType), st.data())
def test_headers_come_back(kind: FrameType, data: st.DataObject) -> None:
    size = data.draw(st.integers(*LIMITS[kind]))
    assert decode_header(encode_header(kind, size)) == (kind, size)


@given(st.binary(min_size=HEADER_SIZE, max_size=HEADER_SIZE), st.booleans())
def test_any_four_bytes_are_a_header_or_a_typed_error(data: bytes, checked: bool) -> None:
    data = with_check(int.from_bytes(data[:3], "big")) if checked else data
    try:
        kind, size = decode_header(data)
    except StreamBroken as error:
        assert "expected" in error.message
        assert "got" in error.message
    else:
        assert encode_header(kind, size) == data
        assert LIMITS[kind][0] <= size <= LIMITS[kind][1]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        (0x000000, "type 1 to 7, got type 0"),
        (0x800000, "type 1 to 7, got type 8"),
        (0x100000, "1 to 1048575 bytes in a DATA frame, got 0"),
        (0x200007, "8 bytes in a END frame, got 7"),
        (0x500001, "0 bytes in a PING frame, got 1"),
        (0x6007D1, "0 to 2000 bytes in a ERROR frame, got 2001"),
    ],
)
def test_a_bad_header_says_what_was_expected_and_what_came(word: int, says: str) -> None:
    with pytest.raises(StreamBroken, match=says):
        decode_header(with_check(word))


@pytest.mark.parametrize("wrong", [1, 2, 3])
def test_no_wrong_bits_go_unnoticed(wrong: int) -> None:
    for kind, size in ((P, 0), (S, 0), (D, 5000), (D, MAX_DATA), (E, 8)):
        header = int.from_bytes(encode_header(kind, size), "big")
        for bits in itertools.combinations(range(32), wrong):
            flipped = header ^ sum(1 << bit for bit in bits)
            with pytest.raises(StreamBroken, match="check byte is wrong"):
                decode_header(flipped.to_bytes(4, "big"))


@given(st.integers(0, 2**64 - 1))
def test_totals_come_back(total: int) -> None:
    assert decode_total(encode_total(total)) == total


@given(st.text(), st.text())
def test_causes_fit_and_are_safe_to_print(reason: str, origin: str) -> None:
    said = encode_cause(Cause(reason, origin))
    assert len(said) <= MAX_REASON
    shown = decode_cause(said)
    assert shown.reason
    assert all(c.isprintable() or c == "\n" for c in shown.reason)
    assert shown.origin == (origin if names.is_name(origin) else "")


def test_a_reason_that_is_too_long_is_cut_and_its_origin_is_not() -> None:
    assert decode_cause(encode_cause(Cause("é" * 3000, "worker 1"))).origin == "worker 1"


@given(st.binary(max_size=MAX_REASON))
def test_any_bytes_are_a_cause(data: bytes) -> None:
    cause = decode_cause(data)
    assert all(c.isprintable() or c == "\n" for c in cause.reason)
    assert not cause.origin or names.is_name(cause.origin)


def test_a_sender_is_done_at_the_ack_of_its_total() -> None:
    sender = Outgoing()
    sender.hear(P)
    sender.total += 700
    sender.hear(S)
    assert sender.say(E) == encode_total(700)
    sender.hear(P)
    sender.hear(A, encode_total(700))
    assert (sender.state, sender.stopped) == (State.CLOSED, True)


def test_a_receiver_acknowledges_what_it_has_counted() -> None:
    receiver = Incoming()
    for _ in range(3):
        receiver.hear(D)
        receiver.total += 100
    receiver.hear(P)
    receiver.hear(E, encode_total(300))
    states = [receiver.state]
    assert receiver.say(A) == encode_total(300)
    states.append(receiver.state)
    assert states == [State.ENDED, State.CLOSED]
    receiver.hear(P)
    receiver.hear(F)
    assert receiver.state is State.DONE


# (who hears, what it heard before, what comes now, what the error says)
OUT_OF_ORDER = [
    (Outgoing, [], D, "expected one of PING, STOP before END, got DATA"),
    (Outgoing, [], A, "expected one of PING, STOP before END, got ACK"),
    (Outgoing, [], E, "got END"),
    (Outgoing, ["end"], D, "expected one of PING, STOP, ACK after END, got DATA"),
    (Outgoing, ["end", A], A, "expected one of nothing more after ACK, got ACK"),
    (Incoming, [], A, "expected one of PING, DATA, END before END, got ACK"),
    (Incoming, [], S, "got STOP"),
    (Incoming, [E], D, "expected one of PING after END, got DATA"),
    (Incoming, [E], E, "got END"),
    (Incoming, [E], F, "expected one of PING after END, got DONE"),
    (Outgoing, ["end", A], F, "got DONE"),
]


@pytest.mark.parametrize(("end", "before", "kind", "says"), OUT_OF_ORDER)
def test_frames_out_of_order(
    end: type[Outgoing | Incoming], before: list[FrameType | str], kind: FrameType, says: str
) -> None:
    stream = end()
    for event in before:
        if isinstance(event, FrameType):
            stream.hear(event, encode_total(0))
        else:
            stream.say(E)
    with pytest.raises(StreamBroken, match=says):
        stream.hear(kind, encode_total(0))


@given(st.integers(0, 2**40), st.integers(0, 2**40).filter(bool))
def test_a_wrong_total_is_never_believed(total: int, off: int) -> None:
    receiver, sender = Incoming(), Outgoing()
    receiver.total = sender.total = total
    sender.say(E)
    wrong = encode_total(total + off)
    for end, kind in ((receiver, E), (sender, A)):
        with pytest.raises(StreamBroken, match=f"total of {total} bytes, got {total + off}"):
            end.hear(kind, wrong)


@pytest.mark.parametrize("end", [Outgoing, Incoming])
def test_an_error_brings_its_cause_in_any_state(end: type[Outgoing | Incoming]) -> None:
    stream = end()
    stream.total = 42
    for state in State:
        stream.state = state
        with pytest.raises(StreamBroken) as caught:
            stream.hear(X, encode_cause(Cause("sort: disk full", "worker1")))
        assert caught.value.reported_by_peer
        assert caught.value.cause == Cause("sort: disk full", "worker1")
        assert caught.value.at_byte == 42


@given(st.lists(st.tuples(st.sampled_from(FrameType), st.binary(max_size=12)), max_size=20))
def test_no_conversation_ends_well_by_chance(heard: list[tuple[FrameType, bytes]]) -> None:
    """Whatever comes: typed errors only, and CLOSED only after our END and its right total."""
    sender = Outgoing()
    sender.total = 7
    try:
        for kind, payload in heard:
            sender.hear(kind, payload)
    except StreamBroken:
        return
    assert sender.state is State.OPEN
    assert all(kind in (P, S) for kind, _ in heard)
