"""Calling the EC2 handler: the token, and how an event crosses a network under it.

    caller    {"v": 1, "nonce": NC}
    handler   {"v": 1, "nonce": NH}
    caller    {"sealed": AES-256-GCM under HKDF(token, salt NC ‖ NH, "punch event")}
    handler   {"sealed": AES-256-GCM under HKDF(token, salt NC ‖ NH, "punch answer")}

each a line of JSON, binary in hexadecimal or base64. The keys are of this connection alone, so
what was recorded opens no other one, and each seals one message, so its nonce is constant.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from punchlib.errors import PunchError, UsageError

TOKEN = "PUNCH_HANDLER_TOKEN"
TOKEN_FILE = "PUNCH_HANDLER_TOKEN_FILE"
#: A token is the only thing between a network and this machine.
SHORTEST_TOKEN = 16
#: Seconds for either side to send a whole document that it need not wait for.
REQUEST_TIME = 10.0
#: Bytes of an answer: stderr's tails and failures of all scripts of an event.
MAX_ANSWER = 64 << 20
NONCE = 16
_LONGEST_ADDRESS = 107


class NotAllowed(PunchError):
    """The caller may not call; the message is for it."""


@contextlib.contextmanager
def unix_address(path: str) -> Iterator[str]:
    """A Unix socket's address within the 107 bytes that it may have (unix(7)).

    Args:
        path: of the socket; a TMPDIR may be deep.
    """
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield path
        return
    above, _, name = path.rpartition("/")
    folder = os.open(above, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{name}"
    finally:
        os.close(folder)


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


def call(
    connection: socket.socket,
    event: Mapping[str, object],
    token: bytes | None,
    patience: float | None = None,
) -> bytes:
    """Sends an event and waits for the answer.

    Args:
        connection: to the handler.
        event: what it shall do.
        token: the handler's; None where it needs none.
        patience: seconds to wait for the answer, whatever becomes of the event when we leave, so
            our half of the connection is closed; None: as long as it takes, and the handler sees
            when we are gone.

    Returns:
        The answer; b"" where the handler ended before it gave one.

    Raises:
        NotAllowed: the handler does not know our token.
        TimeoutError: no answer came in time.
        OSError: the connection broke.
    """
    lines = Lines(connection, MAX_ANSWER, "answer")
    salt = b""
    if token:
        ours = os.urandom(NONCE)
        send(connection, {"v": 1, "nonce": ours.hex()})
        try:
            greeting = lines.document()
        except TimeoutError:
            raise NotAllowed(
                f"it did not answer a call with a token within {REQUEST_TIME:g} s: an older"
                f" punchlib, or none; unset {TOKEN} to call it without"
            ) from None
        if not greeting:
            return b""  # it has ended
        data = parse(greeting)
        if not isinstance(data, Mapping) or "nonce" not in data:
            return _refusal(data, greeting)
        salt = ours + nonce(data)
        send(connection, seal(token, salt, "event", json.dumps(event).encode()))
    else:
        # At once: a handler may refuse a whole line, and leave.
        end = b"\nEND\n" if patience is None else b"\n"
        connection.sendall(json.dumps(event).encode() + end)
    if patience is not None:
        with contextlib.suppress(OSError):  # it has answered, and left
            connection.shutdown(socket.SHUT_WR)
    lines.within(patience)
    answer = lines.document()
    if not token or not answer:
        return answer
    parsed = parse(answer)
    opened = unseal(token, salt, "answer", parsed)
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


class Lines:
    """Reads JSON documents: lines, or what comes before `END` or the end of the stream."""

    def __init__(self, connection: socket.socket, limit: int, what: str = "request") -> None:
        self._connection = connection
        self._limit = limit
        self._what = what
        self._data = bytearray()
        self.ended = False
        self.within(REQUEST_TIME)

    def within(self, seconds: float | None) -> None:
        """Gives all documents from now on so much time together; None: as long as it takes."""
        self._seconds = seconds
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def document(self) -> bytes:
        """The next document.

        Raises:
            UsageError: it is too long.
            TimeoutError: it is too late.
        """
        while not (found := self._complete()) and not self.ended:
            left = None if self._deadline is None else self._deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"no whole {self._what} within {self._seconds:g} s")
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


def parse(text: bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the request is not JSON: {error}") from None


def send(connection: socket.socket, data: Mapping[str, object]) -> None:
    connection.sendall(json.dumps(data).encode() + b"\n")


def nonce(data: Mapping[str, Any]) -> bytes:
    try:
        nonce = bytes.fromhex(data["nonce"])
    except (TypeError, ValueError):
        nonce = b""
    if len(nonce) != NONCE:
        raise UsageError(f"the request's nonce is not {NONCE} bytes in hexadecimal")
    return nonce


def _cipher(token: bytes, salt: bytes, purpose: str) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    key = HKDF(SHA256(), 32, salt=salt, info=f"punch {purpose}".encode()).derive(token)
    return AESGCM(key)


def seal(token: bytes, salt: bytes, purpose: str, text: bytes) -> dict[str, str]:
    sealed = _cipher(token, salt, purpose).encrypt(bytes(12), text, None)
    return {"sealed": base64.b64encode(sealed).decode()}


def unseal(token: bytes, salt: bytes, purpose: str, data: object) -> bytes | None:
    """What was sealed; None when it was not, or not with this token."""
    from cryptography.exceptions import InvalidTag

    try:
        sealed = base64.b64decode(data["sealed"], validate=True)  # type: ignore[index]
        return bytes(_cipher(token, salt, purpose).decrypt(bytes(12), sealed, None))
    except (KeyError, TypeError, ValueError, InvalidTag):
        return None
