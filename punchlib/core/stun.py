"""STUN binding requests and responses: bytes in, facts out (RFC 8489; RFC 5780 for OTHER-ADDRESS).

Only what learning a mapped address needs. Over TCP a message frames itself: the header holds the
length (RFC 8489 section 6.2.2).
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from punchlib.core.candidates import TransportAddress

MAGIC_COOKIE = 0x2112A442
HEADER = struct.Struct("!HHI12s")
#: A binding response is far smaller; anything beyond this is not STUN.
MAX_MESSAGE = 2048

BINDING_REQUEST = 0x0001
BINDING_SUCCESS = 0x0101
BINDING_ERROR = 0x0111

MAPPED_ADDRESS = 0x0001
CHANGE_REQUEST = 0x0003
ERROR_CODE = 0x0009
XOR_MAPPED_ADDRESS = 0x0020
RESPONSE_ORIGIN = 0x802B
OTHER_ADDRESS = 0x802C


class StunError(ValueError):
    """The bytes are not the STUN response that was asked for."""


@dataclass(frozen=True)
class BindingResponse:
    """What a server said.

    Attributes:
        mapped: our address as the server saw it.
        other: the server's second address (RFC 5780 section 7.4), if it named one.
    """

    mapped: TransportAddress
    other: TransportAddress | None


def binding_request(transaction_id: bytes) -> bytes:
    """A binding request without attributes; `transaction_id` is 12 random bytes."""
    return HEADER.pack(BINDING_REQUEST, 0, MAGIC_COOKIE, transaction_id)


def change_request(transaction_id: bytes) -> bytes:
    """A binding request to be answered from the server's other address and port.

    RFC 5780 sections 4.4 and 7.2; over UDP only.
    """
    attribute = struct.pack("!HHI", CHANGE_REQUEST, 4, 0x06)
    header = HEADER.pack(BINDING_REQUEST, len(attribute), MAGIC_COOKIE, transaction_id)
    return header + attribute


def binding_success(transaction_id: bytes, mapped: TransportAddress) -> bytes:
    """The answer of a server that saw `mapped` (for the embedded STUN server)."""
    port = mapped.port ^ (MAGIC_COOKIE >> 16)
    address = int(ipaddress.IPv4Address(mapped.host)) ^ MAGIC_COOKIE
    value = struct.pack("!BBHI", 0, 1, port, address)
    attribute = struct.pack("!HH", XOR_MAPPED_ADDRESS, len(value)) + value
    return HEADER.pack(BINDING_SUCCESS, len(attribute), MAGIC_COOKIE, transaction_id) + attribute


def message_length(buffer: bytes) -> int | None:
    """Length in bytes of the message that `buffer` begins with; None while it is not known yet.

    Raises:
        StunError: this cannot be a STUN message.
    """
    if len(buffer) < HEADER.size:
        return None
    kind, length, cookie, _ = HEADER.unpack_from(buffer)
    if kind & 0xC000 or cookie != MAGIC_COOKIE or length % 4:
        raise StunError(f"not a STUN message: it begins with {buffer[:8].hex()}")
    if length + HEADER.size > MAX_MESSAGE:
        raise StunError(f"a STUN message of {length} bytes; at most {MAX_MESSAGE} are expected")
    return int(length + HEADER.size)


def parse_request(message: bytes) -> bytes:
    """The transaction id of a whole binding request.

    Raises:
        StunError: it is something else.
    """
    if message_length(message) != len(message):
        raise StunError("an incomplete STUN message")
    kind, _, _, transaction_id = HEADER.unpack_from(message)
    if kind != BINDING_REQUEST:
        raise StunError(f"STUN message type 0x{kind:04x} is not a binding request")
    return bytes(transaction_id)


def parse_response(message: bytes, transaction_id: bytes) -> BindingResponse:
    """Reads a whole binding response.

    Raises:
        StunError: malformed, an error response, or the answer to another request.
    """
    if message_length(message) != len(message):
        raise StunError("an incomplete STUN message")
    kind, _, _, got_id = HEADER.unpack_from(message)
    if got_id != transaction_id:
        raise StunError("the answer to another request (transaction id differs)")
    attributes = _attributes(message)
    if kind == BINDING_ERROR:
        raise StunError(_error_text(attributes.get(ERROR_CODE, b"")))
    if kind != BINDING_SUCCESS:
        raise StunError(f"STUN message type 0x{kind:04x} is not a binding response")
    if XOR_MAPPED_ADDRESS in attributes:
        mapped = _address(attributes[XOR_MAPPED_ADDRESS], xor=True)
    elif MAPPED_ADDRESS in attributes:
        mapped = _address(attributes[MAPPED_ADDRESS], xor=False)
    else:
        raise StunError("a binding response without a mapped address")
    other = attributes.get(OTHER_ADDRESS)
    return BindingResponse(mapped, _address(other, xor=False) if other else None)


def _attributes(message: bytes) -> dict[int, bytes]:
    """First occurrence of each attribute (RFC 8489 section 14: later ones are ignored)."""
    found: dict[int, bytes] = {}
    at = HEADER.size
    while at < len(message):
        if at + 4 > len(message):
            raise StunError("a truncated STUN attribute")
        kind, length = struct.unpack_from("!HH", message, at)
        if at + 4 + length > len(message):
            raise StunError(f"STUN attribute 0x{kind:04x} is longer than its message")
        found.setdefault(kind, message[at + 4 : at + 4 + length])
        at += 4 + length + (-length) % 4
    return found


def _address(value: bytes, *, xor: bool) -> TransportAddress:
    if len(value) != 8 or value[1] != 1:
        raise StunError("a mapped address that is not IPv4")
    port, address = struct.unpack_from("!HI", value, 2)
    if xor:
        port ^= MAGIC_COOKIE >> 16
        address ^= MAGIC_COOKIE
    if port == 0 or address == 0:
        raise StunError("a mapped address of zeros")
    return TransportAddress(str(ipaddress.IPv4Address(address)), port)


def _error_text(value: bytes) -> str:
    if len(value) < 4:
        return "a STUN error response without a code"
    code = (value[2] & 7) * 100 + value[3]
    return f"STUN error {code}: {value[4:].decode('utf-8', 'replace')}"
