"""Who may call the EC2 handler, and how an event crosses a network.

An event starts scripts with the handler's rights and carries the job's key. So on one machine the
kernel says who calls: the handler's own user, or root, over a Unix socket or over loopback. From
anywhere else only who knows the handler's token may call, and neither event nor answer is sent in
clear text:

    caller    {"v": 1, "nonce": NC}
    handler   {"v": 1, "nonce": NH}
    caller    {"sealed": AES-256-GCM under HKDF(token, salt NC ‖ NH, "punch event")}
    handler   {"sealed": AES-256-GCM under HKDF(token, salt NC ‖ NH, "punch answer")}

each a line of JSON, binary in hexadecimal or base64. The keys are of this connection alone, so
what was recorded opens no other one, and each seals one message, so its nonce is constant.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from punchlib.errors import PunchError, UsageError

TOKEN = "PUNCH_HANDLER_TOKEN"
TOKEN_FILE = "PUNCH_HANDLER_TOKEN_FILE"
#: A token is the only thing between a network and this machine.
SHORTEST_TOKEN = 16
#: Bytes; a request is far smaller.
MAX_REQUEST = 1 << 20
#: Seconds for a caller to send the whole request.
REQUEST_TIME = 10.0
#: Bytes of an answer: stderr's tails and failures of all scripts of an event.
MAX_ANSWER = 64 << 20
_NONCE = 16


class NotAllowed(PunchError):
    """The caller may not call; the message is for it."""


def take_token() -> bytes | None:
    """The token of PUNCH_HANDLER_TOKEN or of the file that PUNCH_HANDLER_TOKEN_FILE names.

    Taken out of the environment: what this process starts must not inherit it.

    Raises:
        UsageError: the file cannot be read, or the token is too short.
    """
    token, file = os.environ.pop(TOKEN, ""), os.environ.pop(TOKEN_FILE, "")
    if file and not token:
        try:
            token = Path(file).read_text(encoding="utf-8", errors="surrogateescape").strip()
        except OSError as error:
            raise UsageError(f"cannot read {TOKEN_FILE} {file!r}: {error.strerror}") from None
    elif not token:
        return None
    if len(token) < SHORTEST_TOKEN:
        raise UsageError(
            f"the handler's token has fewer than {SHORTEST_TOKEN} characters",
            next_step=f"make one: openssl rand -hex 32; give it in {TOKEN} or {TOKEN_FILE}",
        )
    return token.encode("utf-8", "surrogateescape")


class Visit:
    """The handler's side of one connection.

    Args:
        connection: accepted.
        token: the handler's; None lets only this user and root in.
    """

    def __init__(self, connection: socket.socket, token: bytes | None) -> None:
        self._connection = connection
        self._token = token
        self._salt = b""
        self._sealing = False
        #: The caller has closed its half, as it may to say that its request ends there.
        self.half_closed = False

    def request(self) -> object:
        """Reads the request; None from a mere probe.

        Raises:
            NotAllowed: the caller may not call.
            UsageError: it is no request.
            OSError: the connection broke, or the caller took too long.
        """
        # Asked at once: of a caller that has left, nobody can tell whose it was.
        allowed = self._token is not None or _is_our_user(self._connection)
        lines = _Lines(self._connection, MAX_REQUEST)
        text = lines.document()
        self.half_closed = lines.ended
        if not text.strip():
            return None
        if not allowed:
            raise NotAllowed(
                f"{_peer(self._connection)} may not call: this handler has no token, so it serves"
                " its own user alone"
            )
        data = _parse(text)
        if not isinstance(data, Mapping) or "nonce" not in data:
            if self._token is None:
                return data
            raise NotAllowed(f"this handler wants a token: set {TOKEN}, as on its machine")
        if self._token is None:
            raise NotAllowed(f"this handler has no token: unset {TOKEN}, or set it there as well")
        ours = os.urandom(_NONCE)
        self._salt = _nonce(data) + ours
        _send(self._connection, {"v": 1, "nonce": ours.hex()})
        sealed = _parse(lines.document())
        self.half_closed = lines.ended
        event = _open(self._token, self._salt, "event", sealed)
        if event is None:
            raise NotAllowed(f"{_peer(self._connection)} does not know this handler's token")
        self._sealing = True
        return _parse(event)

    def answer(self, answer: Mapping[str, object]) -> None:
        """Sends the answer, sealed where the request was.

        Raises:
            OSError: the caller has left.
        """
        if self._token and self._sealing:
            answer = _seal(self._token, self._salt, "answer", json.dumps(answer).encode())
        self._connection.settimeout(REQUEST_TIME)
        _send(self._connection, answer)


def call(connection: socket.socket, event: Mapping[str, object], token: bytes | None) -> bytes:
    """The caller's side: sends an event and waits for the answer, as long as it takes.

    The connection stays open both ways meanwhile: so the handler sees when we are gone.

    Raises:
        NotAllowed: the handler does not know our token.
        OSError: the connection broke.
    """
    lines = _Lines(connection, MAX_ANSWER)
    salt = b""
    if token:
        ours = os.urandom(_NONCE)
        _send(connection, {"v": 1, "nonce": ours.hex()})
        try:
            greeting = lines.document()
        except TimeoutError:
            raise NotAllowed(
                f"it did not answer a call with a token within {REQUEST_TIME:g} s: an older"
                f" punchlib, or none; unset {TOKEN} to call it without"
            ) from None
        if not greeting:
            return b""  # it has ended
        data = _parse(greeting)
        if not isinstance(data, Mapping) or "nonce" not in data:
            return _refusal(data, greeting)
        salt = ours + _nonce(data)
        _send(connection, _seal(token, salt, "event", json.dumps(event).encode()))
    else:
        connection.sendall(json.dumps(event).encode() + b"\nEND\n")
    answer = lines.document(patient=True)
    if not token or not answer:
        return answer
    parsed = _parse(answer)
    opened = _open(token, salt, "answer", parsed)
    if opened is None and isinstance(parsed, Mapping) and "sealed" in parsed:
        raise NotAllowed("its answer is not sealed with our token: is it the right handler?")
    return _refusal(parsed, answer) if opened is None else opened


def _refusal(answer: object, text: bytes) -> bytes:
    """What may come in clear text where there is a token: that the handler refuses.

    Raises:
        NotAllowed: it says anything else, and anybody could have said it.
    """
    if isinstance(answer, Mapping) and "error" in answer and "errorType" not in answer:
        return text  # and no result, whatever else stands there
    raise NotAllowed("it answered without the token: it is not the right handler")


class _Lines:
    """Reads JSON documents: lines, or what comes before `END` or the end of the stream."""

    def __init__(self, connection: socket.socket, limit: int) -> None:
        self._connection = connection
        self._limit = limit
        self._data = bytearray()
        self._deadline = time.monotonic() + REQUEST_TIME
        self.ended = False

    def document(self, *, patient: bool = False) -> bytes:
        """The next document.

        Args:
            patient: wait for as long as it takes; otherwise all documents together have
                REQUEST_TIME.

        Raises:
            UsageError: it is too long.
            TimeoutError: it is too late.
        """
        while not (found := self._complete()) and not self.ended:
            left = None if patient else self._deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"no whole request within {REQUEST_TIME:g} s")
            self._connection.settimeout(left)
            try:
                chunk = self._connection.recv(65536)
            except TimeoutError:
                continue
            self.ended = not chunk
            self._data += chunk
            if len(self._data) > self._limit:
                raise UsageError(f"a request of more than {self._limit} bytes")
        self._connection.settimeout(None)
        if found:
            return found
        rest, self._data = bytes(self._data), bytearray()
        return rest.rstrip().removesuffix(b"END")

    def _complete(self) -> bytes:
        """A document that has wholly come; b"" when none has."""
        stripped = self._data.rstrip()
        if stripped.endswith(b"END"):
            self._data.clear()
            return bytes(stripped[:-3])
        if not self._data.endswith(b"\n"):
            return b""
        try:
            json.loads(stripped)
        except (ValueError, RecursionError):
            return b""  # JSON of several lines, perhaps
        self._data.clear()
        return bytes(stripped)


def _parse(text: bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the request is not JSON: {error}") from None


def _send(connection: socket.socket, data: Mapping[str, object]) -> None:
    connection.sendall(json.dumps(data).encode() + b"\n")


def _nonce(data: Mapping[str, Any]) -> bytes:
    try:
        nonce = bytes.fromhex(data["nonce"])
    except (TypeError, ValueError):
        nonce = b""
    if len(nonce) != _NONCE:
        raise UsageError(f"the request's nonce is not {_NONCE} bytes in hexadecimal")
    return nonce


def _cipher(token: bytes, salt: bytes, purpose: str) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    key = HKDF(SHA256(), 32, salt=salt, info=f"punch {purpose}".encode()).derive(token)
    return AESGCM(key)


def _seal(token: bytes, salt: bytes, purpose: str, text: bytes) -> dict[str, str]:
    sealed = _cipher(token, salt, purpose).encrypt(bytes(12), text, None)
    return {"sealed": base64.b64encode(sealed).decode()}


def _open(token: bytes, salt: bytes, purpose: str, data: object) -> bytes | None:
    """What was sealed; None when it was not, or not with this token."""
    from cryptography.exceptions import InvalidTag

    try:
        sealed = base64.b64decode(data["sealed"], validate=True)  # type: ignore[index]
        return bytes(_cipher(token, salt, purpose).decrypt(bytes(12), sealed, None))
    except (KeyError, TypeError, ValueError, InvalidTag):
        return None


def _is_our_user(connection: socket.socket) -> bool:
    """Does the caller run on this machine as our user or as root?"""
    if connection.family == socket.AF_UNIX:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        uid = struct.unpack("iII", credentials)[1]
    else:
        uid = _uid_on_loopback(connection)
    return uid in (os.getuid(), 0)


def _uid_on_loopback(connection: socket.socket) -> int | None:
    """Whose the other end of a connection within this machine is.

    None for a caller from elsewhere, and for one that has left: its row would say root.
    """
    name, table = ("tcp6", 6) if connection.family == socket.AF_INET6 else ("tcp", 4)
    try:
        theirs = _hexadecimal(connection.getpeername(), table)
        ours = _hexadecimal(connection.getsockname(), table)
        rows = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    except OSError:
        return None
    for row in rows:
        fields = row.split()
        if (fields[1], fields[2]) == (theirs, ours) and fields[9] != "0":
            return int(fields[7])
    return None


def _hexadecimal(address: Any, version: int) -> str:
    """As /proc/net/tcp writes it: each 32-bit word in the machine's order."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    packed = socket.inet_pton(family, address[0])
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{w:08X}" for w in words) + f":{address[1]:04X}"


def _peer(connection: socket.socket) -> str:
    if connection.family == socket.AF_UNIX:
        return "another user of this machine"
    try:
        return str(connection.getpeername()[0])
    except OSError:
        return "a caller that has left"
