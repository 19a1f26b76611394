"""The frames of a v2 stream, and the order in which they may come (docs/wire.md).

A frame is a 4-byte header and a payload. The header: the type in 4 bits, the payload's length in
20, and a check byte over both.

    sender ── DATA… ────────── END(total) ──────────── DONE ──▶ receiver
    sender ◀── STOP? ──────────────────── ACK(total) ────────── receiver
    either ── PING at any time, ERROR(reason) instead of whatever comes next ──▶ other

`Outgoing` and `Incoming` are the two ends' view of one stream: they count, and refuse what is out
of order, whether the peer says it or we are about to. Nothing here does I/O or knows the time.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from punchlib import names
from punchlib.errors import REPORTED, Cause, StreamBroken

HEADER_SIZE = 4
#: The most payload that one DATA frame carries, in bytes.
MAX_DATA = (1 << 20) - 1
#: The longest payload of an ERROR frame: reason, and after a NUL the origin, in bytes of UTF-8.
MAX_REASON = 2000

# Type (4 bits) and size (20 bits), then a check byte. It is that of ATM's four-byte header (HEC,
# ITU-T I.432.1: CRC-8, x⁸ + x² + x + 1, xor 0x55): up to three wrong bits never go unnoticed.
# `authenticated` needs it: one bit would make a STOP of a PING, and of a short stream a whole one.
_HEADER = struct.Struct("!BBBB")
_CHECK = 0x55
_TOTAL = struct.Struct("!Q")


class FrameType(enum.IntEnum):
    """What a frame says."""

    DATA = 1
    END = 2
    ACK = 3
    STOP = 4
    PING = 5
    ERROR = 6
    DONE = 7


class State(enum.Enum):
    """Where a stream stands."""

    OPEN = "before END"
    ENDED = "after END"
    CLOSED = "after ACK"
    DONE = "after DONE"


class FrameHeader(NamedTuple):
    """A frame's header: its type and the size of its payload in bytes."""

    type: FrameType
    size: int


_TYPES = {int(kind): kind for kind in FrameType}
_SIZES: dict[FrameType, tuple[int, int]] = {
    FrameType.DATA: (1, MAX_DATA),
    FrameType.END: (_TOTAL.size, _TOTAL.size),
    FrameType.ACK: (_TOTAL.size, _TOTAL.size),
    FrameType.STOP: (0, 0),
    FrameType.PING: (0, 0),
    FrameType.ERROR: (0, MAX_REASON),
    FrameType.DONE: (0, 0),
}

# What each end may say and hear in each state, and the state that follows. ERROR may always come,
# and ends the stream. `make diagrams` draws them.
SENDER_SAYS: dict[tuple[State, FrameType], State] = {
    (State.OPEN, FrameType.PING): State.OPEN,
    (State.OPEN, FrameType.DATA): State.OPEN,
    (State.OPEN, FrameType.END): State.ENDED,
    (State.ENDED, FrameType.PING): State.ENDED,
    (State.CLOSED, FrameType.DONE): State.DONE,
}
SENDER_HEARS: dict[tuple[State, FrameType], State] = {
    (State.OPEN, FrameType.PING): State.OPEN,
    (State.OPEN, FrameType.STOP): State.OPEN,
    (State.ENDED, FrameType.PING): State.ENDED,
    (State.ENDED, FrameType.STOP): State.ENDED,
    (State.ENDED, FrameType.ACK): State.CLOSED,
}
RECEIVER_SAYS: dict[tuple[State, FrameType], State] = {
    (State.OPEN, FrameType.PING): State.OPEN,
    (State.OPEN, FrameType.STOP): State.OPEN,
    (State.ENDED, FrameType.PING): State.ENDED,
    (State.ENDED, FrameType.STOP): State.ENDED,
    (State.ENDED, FrameType.ACK): State.CLOSED,
}
RECEIVER_HEARS: dict[tuple[State, FrameType], State] = {
    (State.OPEN, FrameType.PING): State.OPEN,
    (State.OPEN, FrameType.DATA): State.OPEN,
    (State.OPEN, FrameType.END): State.ENDED,
    (State.ENDED, FrameType.PING): State.ENDED,
    (State.CLOSED, FrameType.PING): State.CLOSED,
    (State.CLOSED, FrameType.DONE): State.DONE,
}


def _crc8_table() -> bytes:
    table = bytearray()
    for value in range(256):
        for _ in range(8):
            value = (value << 1) ^ (0x107 if value & 0x80 else 0)
        table.append(value)
    return bytes(table)


_CRC8 = _crc8_table()


def _check(a: int, b: int, c: int) -> int:
    return _CRC8[_CRC8[_CRC8[a] ^ b] ^ c] ^ _CHECK


def encode_header(kind: FrameType, size: int) -> bytes:
    """The header of a frame with `size` bytes of payload."""
    a, b, c = kind << 4 | size >> 16, size >> 8 & 0xFF, size & 0xFF
    return _HEADER.pack(a, b, c, _check(a, b, c))


def decode_header(data: bytes | bytearray | memoryview) -> FrameHeader:
    """Reads a header of exactly `HEADER_SIZE` bytes.

    Raises:
        StreamBroken: it is damaged, the type is not known, or its payload may not have this size.
    """
    a, b, c, check = _HEADER.unpack(data)
    if check != _check(a, b, c):
        raise StreamBroken(
            f"expected a frame's header, got {bytes(data).hex()}, whose check byte is wrong: "
            "damaged on the way"
        )
    number, size = a >> 4, (a & 0xF) << 16 | b << 8 | c
    kind = _TYPES.get(number)
    if kind is None:
        raise StreamBroken(f"expected a frame of type 1 to {max(FrameType)}, got type {number}")
    least, most = _SIZES[kind]
    if not least <= size <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        raise StreamBroken(f"expected {wanted} bytes in a {kind.name} frame, got {size}")
    return FrameHeader(kind, size)


def encode_total(total: int) -> bytes:
    """The payload of END and ACK."""
    return _TOTAL.pack(total)


def decode_total(payload: bytes | bytearray | memoryview) -> int:
    """Reads the payload of END or ACK.

    Raises:
        StreamBroken: it has not the size of a total.
    """
    if len(payload) != _TOTAL.size:
        raise StreamBroken(f"expected a total of {_TOTAL.size} bytes, got {len(payload)}")
    (total,) = _TOTAL.unpack(payload)
    return int(total)


def encode_cause(cause: Cause) -> bytes:
    """The payload of ERROR: the reason, cut at a character's end, and its origin if it has one."""
    origin = f"\0{cause.origin}".encode() if names.is_name(cause.origin) else b""
    reason = cause.reason.replace("\0", "\\x00").encode("utf-8", "replace")
    return reason[: MAX_REASON - len(origin)].decode("utf-8", "ignore").encode() + origin


def decode_cause(payload: bytes | bytearray | memoryview) -> Cause:
    """Reads the payload of ERROR; what comes back is safe to print."""
    reason, _, origin = bytes(payload).decode("utf-8", "replace").partition("\0")
    return names.heard(reason or "no reason given", origin)


class _Conversation:
    """One end's view of one stream.

    Attributes:
        state: where it stands.
        total: payload bytes so far, of both ends the one count. Whoever moves the payload of DATA
            adds to it, piece by piece.
        stopped: STOP was said: the FIFO's reader has left.
    """

    says: dict[tuple[State, FrameType], State]
    hears: dict[tuple[State, FrameType], State]

    def __init__(self) -> None:
        self.state = State.OPEN
        self.total = 0
        self.stopped = False

    def may_say(self, kind: FrameType) -> bool:
        """Whether the frame would be in order."""
        return (self.state, kind) in self.says

    def say(self, kind: FrameType) -> bytes:
        """A frame is about to be said.

        Returns:
            Its payload, where the stream makes it: that of END and ACK.

        Raises:
            StreamBroken: it would be out of order, which is a fault of ours.
        """
        following = self.says.get((self.state, kind))
        if following is None:
            raise StreamBroken(f"{kind.name} was to be said {self.state.value}", at_byte=self.total)
        self.state = following
        self.stopped |= kind is FrameType.STOP
        return encode_total(self.total) if kind in (FrameType.END, FrameType.ACK) else b""

    def hear(self, kind: FrameType, payload: bytes | bytearray | memoryview = b"") -> None:
        """Takes a frame from the peer; the payload of DATA is not looked at.

        Raises:
            StreamBroken: it is out of order, says another total, or is an ERROR.
        """
        if kind is FrameType.ERROR:
            cause = decode_cause(payload)
            raise StreamBroken(
                REPORTED + cause.reason, at_byte=self.total, reported_by_peer=True, cause=cause
            )
        following = self.hears.get((self.state, kind))
        if following is None:
            expected = ", ".join(k.name for s, k in self.hears if s is self.state)
            raise StreamBroken(
                f"expected one of {expected or 'nothing more'} {self.state.value}, got {kind.name}",
                at_byte=self.total,
            )
        self.state = following
        self.stopped |= kind is FrameType.STOP
        if kind in (FrameType.END, FrameType.ACK):
            self._check_total(kind.name, payload)

    def _check_total(self, name: str, payload: bytes | bytearray | memoryview) -> None:
        said = decode_total(payload)
        if said != self.total:
            raise StreamBroken(
                f"expected {name} with a total of {self.total} bytes, got {said}",
                at_byte=self.total,
            )


class Outgoing(_Conversation):
    """The sender's view: `total` is what was sent."""

    says, hears = SENDER_SAYS, SENDER_HEARS


class Incoming(_Conversation):
    """The receiver's view: `total` is what came.

    Attributes:
        dropped: bytes of it that nobody wanted any more.
    """

    says, hears = RECEIVER_SAYS, RECEIVER_HEARS

    def __init__(self) -> None:
        super().__init__()
        self.dropped = 0

    @property
    def delivered(self) -> int:
        """Bytes that are in the FIFO."""
        return self.total - self.dropped
