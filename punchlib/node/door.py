"""Who may call the EC2 handler, and how an event crosses a network.

An event starts scripts with the handler's rights and carries the job's key. So on one machine the
kernel says who calls: the handler's own user, or root, over a Unix socket or over loopback. From
anywhere else only who knows the handler's token may call, and neither event nor answer is sent in
clear text (punchlib.runtime.handler_call has the caller's side, and what goes over the wire).
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from punchlib.runtime import handler_call
from punchlib.runtime.handler_call import NONCE, REQUEST_TIME, TOKEN, NotAllowed

#: Bytes; a request is far smaller.
MAX_REQUEST = 1 << 20


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
        lines = handler_call.Lines(self._connection, MAX_REQUEST)
        text = lines.document()
        self.half_closed = lines.ended
        if not text.strip():
            return None
        if not allowed:
            raise NotAllowed(
                f"{_peer(self._connection)} may not call: this handler has no token, so it serves"
                " its own user alone"
            )
        data = handler_call.parse(text)
        if not isinstance(data, Mapping) or "nonce" not in data:
            if self._token is None:
                return data
            raise NotAllowed(f"this handler wants a token: set {TOKEN}, as on its machine")
        if self._token is None:
            raise NotAllowed(f"this handler has no token: unset {TOKEN}, or set it there as well")
        ours = os.urandom(NONCE)
        self._salt = handler_call.nonce(data) + ours
        handler_call.send(self._connection, {"v": 1, "nonce": ours.hex()})
        sealed = handler_call.parse(lines.document())
        self.half_closed = lines.ended
        event = handler_call.unseal(self._token, self._salt, "event", sealed)
        if event is None:
            raise NotAllowed(f"{_peer(self._connection)} does not know this handler's token")
        self._sealing = True
        return handler_call.parse(event)

    def answer(self, answer: Mapping[str, object]) -> None:
        """Sends the answer, sealed where the request was.

        Raises:
            OSError: the caller has left.
        """
        if self._token and self._sealing:
            answer = handler_call.seal(
                self._token, self._salt, "answer", json.dumps(answer).encode()
            )
        self._connection.settimeout(REQUEST_TIME)
        handler_call.send(self._connection, answer)


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
