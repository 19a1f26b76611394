"""docs/wire.md against the code: what its tables say of frames, greetings and records is so."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from punchlib.config import Security
from punchlib.core.candidates import Candidate, CandidateType, TransportAddress
from punchlib.core.frames import (
    HEADER_SIZE,
    MAX_DATA,
    FrameType,
    Incoming,
    Outgoing,
    decode_header,
    encode_header,
    encode_total,
)
from punchlib.core.handshake import CONFIRMATION_SIZE, GREETING_SIZE, Greeter, Terms, hkdf
from punchlib.core.records import Record, Withdrawal, parse
from punchlib.errors import Cause, StreamBroken

PAGE = (Path(__file__).parents[2] / "docs/wire.md").read_text()


def table(head: str) -> list[list[str]]:
    """The rows of the table that begins with this row."""
    lines = iter(PAGE.split(f"\n{head}\n")[1].splitlines())
    assert set(next(lines)) <= {"|", "-"}
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


FRAMES = table("| type | | payload | from | meaning |")
NAMES = [row[1] for row in FRAMES]


def documented_sizes(payload: str) -> range:
    if payload == "–":
        return range(1)
    least, most = re.match(r"(\d+)(?: to ([\d,]+))? bytes", payload).groups()  # type: ignore[union-attr]
    return range(int(least), int((most or least).replace(",", "")) + 1)


def test_the_types_are_those_of_the_code() -> None:
    assert {row[1]: int(row[0]) for row in FRAMES} == {kind.name: kind.value for kind in FrameType}


@pytest.mark.parametrize(("name", "payload"), [(row[1], row[2]) for row in FRAMES], ids=NAMES)
def test_a_payload_has_a_size_of_the_table(name: str, payload: str) -> None:
    kind, sizes = FrameType[name], documented_sizes(payload)
    for size in (sizes[0] - 1, sizes[0], sizes[-1], sizes[-1] + 1):
        if not 0 <= size < 1 << 20:  # the length has 20 bits
            continue
        header = encode_header(kind, size)
        assert len(header) == HEADER_SIZE == 4
        if size in sizes:
            assert decode_header(header) == (kind, size)
        else:
            with pytest.raises(StreamBroken):
                decode_header(header)


def test_a_header_is_type_length_and_a_check_byte() -> None:
    first, second, third, check = encode_header(FrameType.DATA, 0x54321)
    assert (first, second, third) == (0x15, 0x43, 0x21)
    value = 0x154321 << 8
    for bit in range(31, 7, -1):  # divided by x⁸ + x² + x + 1
        if value >> bit & 1:
            value ^= 0x107 << (bit - 8)
    assert check == value ^ 0x55
    assert MAX_DATA == 1_048_575


def sender_in(state: str) -> Outgoing:
    end = Outgoing()
    if state != "before END":
        end.say(FrameType.END)
    if state == "after ACK":
        end.hear(FrameType.ACK, encode_total(0))
    return end


def receiver_in(state: str) -> Incoming:
    end = Incoming()
    if state != "before END":
        end.hear(FrameType.END, encode_total(0))
    if state == "after ACK":
        end.say(FrameType.ACK)
    return end


def heard(end: Outgoing | Incoming) -> Callable[[FrameType], bool]:
    def hears(kind: FrameType) -> bool:
        payload = encode_total(0) if kind in (FrameType.END, FrameType.ACK) else b""
        try:
            end.hear(kind, payload)
        except StreamBroken as error:
            return error.reported_by_peer
        return True

    return hears


@pytest.mark.parametrize("state", ["before END", "after END", "after ACK"])
def test_what_each_end_may_hear(state: str) -> None:
    line = re.search(rf"^{state}  +(\S.*?)   +(\S.*)$", PAGE, re.MULTILINE)
    assert line is not None
    ends: tuple[Callable[[str], Outgoing | Incoming], ...] = (sender_in, receiver_in)
    for documented, end_in in zip(line.groups(), ends, strict=True):
        said = {name for name in documented.split(", ") if name != "–"}
        for kind in FrameType:
            hears = heard(end_in(state))(kind)
            assert hears == (kind.name in said or kind is FrameType.ERROR), (end_in, kind)


@pytest.mark.parametrize("state", ["before END", "after END", "after ACK"])
def test_what_each_end_may_say(state: str) -> None:
    _, line = re.findall(rf"^{state}  +(\S.*?)   +(\S.*)$", PAGE, re.MULTILINE)
    for documented, end_in in zip(line, (sender_in, receiver_in), strict=True):
        said = {name for name in documented.split(", ") if name != "–"}
        for kind in FrameType:
            end = end_in(state)
            assert end.may_say(kind) == (kind.name in said), (end_in, kind)
            if end.may_say(kind):
                end.say(kind)
            else:
                with pytest.raises(StreamBroken, match=f"{kind.name} was to be said {state}"):
                    end.say(kind)


GREETINGS = [
    Greeter(Terms("k", True, "0a" * 8, "1b" * 8, Security.AUTHENTICATED, b"j"), nonce=b"n" * 32),
    Greeter(Terms("k", False, "1b" * 8, "0a" * 8, Security.AUTHENTICATED, b"j"), nonce=b"m" * 32),
]


def test_the_fields_of_a_greeting() -> None:
    sender, receiver = GREETINGS
    sent = sender.greeting()
    receiver.verify(sent)
    answered = receiver.greeting()
    expected = {
        "magic": (b"\x93punch\r\n",) * 2,
        "version": (b"\2",) * 2,
        "role": (b"\1", b"\2"),
        "zero": (bytes(6),) * 2,
        "the speaker": (b"\x0a" * 8, b"\x1b" * 8),
        "the other": (b"\x1b" * 8, b"\x0a" * 8),
        "a nonce": (b"n" * 32, b"m" * 32),
        "the nonce": (bytes(32), b"n" * 32),
        "HMAC": tuple(
            hmac.digest(hkdf(b"j", b"punch v2 greeting %d k" % role), said[:96], "sha256")
            for role, said in ((1, sent), (2, answered))
        ),
    }
    rows = table("| offset | size | |")
    assert len(rows) == len(expected)
    end = 0
    for (offset, size, text), (name, values) in zip(rows, expected.items(), strict=True):
        assert text.startswith(name)
        assert int(offset) == end
        end += int(size)
        for said, value in zip((sent, answered), values, strict=True):
            assert said[int(offset) : end] == value, name
    assert end == GREETING_SIZE == 128
    assert CONFIRMATION_SIZE == 32


RECORD = Record(
    TransportAddress("10.0.0.1", 1),
    TransportAddress("192.0.2.1", 2),
    side="0a" * 8,
    expires=1,
    cert=b"cert",
    candidates=(Candidate(CandidateType.SRFLX, TransportAddress("192.0.2.1", 2)),),
)


def test_the_fields_of_a_record() -> None:
    documented = re.findall(r"`(\w+)`", " ".join(row[0] for row in table("| field | |")))
    assert set(json.loads(RECORD.to_json(job_key=b"j"))) == set(documented)


def test_the_words_that_a_record_uses() -> None:
    fields = {row[0]: row[1] for row in table("| field | |")}
    mapping, filtering = fields["`nat`"].split(";")
    for name, words in (("mapping", mapping), ("filtering", filtering)):
        for word in words.split(": ")[1].split(", "):
            text = json.loads(RECORD.to_json())
            text["nat"][name] = word
            read = parse(json.dumps(text))
            assert isinstance(read, Record)
            assert getattr(read.nat, name) == word
    assert f'"type": "{CandidateType.SRFLX}" or "{CandidateType.HOST}"' in fields["`candidates`"]


def test_the_form_of_a_withdrawal() -> None:
    form = re.search(r'`(\{"v": 2, "gone": .*\})`', PAGE)
    assert form is not None
    said = json.loads(Withdrawal("0a" * 8, 4, Cause("why", "worker1")).to_json(job_key=b"j"))
    assert re.findall(r'"(\w+)":', form[1]) == ["v", "gone", *said["gone"], "mac"]
    assert set(said) == {"v", "gone", "mac"}
