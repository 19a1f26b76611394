"""The techniques of docs/nat-traversal.md in their plainest form: blocking, one socket at a time.

The lab tests itself with them: if one connect each does not fail where it was measured to fail, or
hold and dial does not succeed everywhere, then the NATs are not what they say. It is also a second
implementation to hold punchlib's own against.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import select
import socket
import struct
import time
from collections.abc import Callable

Address = tuple[str, int]

IP_MINTTL = 21  # linux/in.h; not in Python's socket module
TCP_SYN_RECV = 3
TTL_FLOOR = 10
RUNG = 0.9  # seconds: before the kernel's retransmission would leave with the full TTL
LADDER = (3, 2, 4, 5, 6)
TOKEN = 16


class Refused(Exception):
    """The connection failed with this errno."""

    def __init__(self, code: int) -> None:
        super().__init__(errno.errorcode.get(code, str(code)))
        self.code = code


def punching_socket(port: int) -> socket.socket:
    """A non-blocking socket bound to the punching port, beside others on the same port."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setblocking(False)
    sock.bind(("", port))
    return sock


def _connect(sock: socket.socket, remote: Address) -> None:
    code = sock.connect_ex(remote)
    if code not in (0, errno.EINPROGRESS):
        raise Refused(code)


def _await(sock: socket.socket, seconds: float) -> bool:
    """Whether the socket is connected after at most so long.

    Raises:
        Refused: it failed.
    """
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    if not poll.poll(max(0.0, seconds) * 1000):
        return False
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise Refused(code)
    return True


def one_connect(port: int, remote: Address, until: float) -> socket.socket:
    """What the old program does."""
    sock = punching_socket(port)
    try:
        _connect(sock, remote)
        if not _await(sock, until - time.monotonic()):
            raise Refused(errno.ETIMEDOUT)
    except Refused:
        sock.close()
        raise
    return sock


def redial(port: int, remote: Address, until: float, pause: float) -> socket.socket:
    """Connects again after every error; `pause` is the mean of a random pause in seconds.

    Equal pauses at both ends lock in step and never meet.
    """
    while True:
        try:
            return one_connect(port, remote, until)
        except Refused as refused:
            if time.monotonic() >= until:
                raise
            # The address is taken while the kernel still answers for the old socket.
            assert refused.code != errno.EADDRNOTAVAIL, "two sockets on one 4-tuple"
        if pause:
            time.sleep(random.uniform(0.5, 1.5) * pause)


def dial(port: int, remote: Address, until: float) -> socket.socket:
    return redial(port, remote, until, pause=0.01)


def race(port: int, remote: Address, until: float) -> socket.socket:
    return redial(port, remote, until, pause=0.0)


def hold(port: int, remote: Address, until: float) -> socket.socket:
    """Low-TTL SYNs that open our own NAT and die on the way, until the dialler's SYN comes."""
    rungs = list(LADDER)
    held: socket.socket | None = None
    for rung in itertools.count():
        if not rungs:
            # Every rung reaches the peer's NAT, which answers: there is nothing to hold with.
            assert held is None
            return race(port, remote, until)
        ttl = rungs[rung % len(rungs)]
        sock = punching_socket(port)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        sock.setsockopt(socket.IPPROTO_IP, IP_MINTTL, TTL_FLOOR)
        if held is not None:
            held.close()
        held = sock
        try:
            _connect(sock, remote)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
            connected = _await(sock, min(RUNG, until - time.monotonic()))
            while not connected and _state(sock) == TCP_SYN_RECV and time.monotonic() < until:
                connected = _await(sock, RUNG)
        except Refused:
            rungs = [t for t in rungs if t < ttl]
            held.close()
            held = None
            continue
        if connected:
            sock.setsockopt(socket.IPPROTO_IP, IP_MINTTL, 0)
            return sock
        if time.monotonic() >= until:
            sock.close()
            raise Refused(errno.ETIMEDOUT)
    raise AssertionError("unreachable")


def _state(sock: socket.socket) -> int:
    state: int = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0]
    return state


TECHNIQUES: dict[str, Callable[[int, Address, float], socket.socket]] = {
    "one": one_connect,
    "redial": lambda port, remote, until: redial(port, remote, until, 0.3),
    "race": race,
    "hold": hold,
    "dial": dial,
}


def exchange(sock: socket.socket, seconds: float) -> bool:
    """Whether a token crosses both ways: an established socket alone proves nothing."""
    sock.setblocking(True)
    sock.settimeout(seconds)
    try:
        sock.sendall(os.urandom(TOKEN))
        got = 0
        while got < TOKEN:
            data = sock.recv(TOKEN - got)
            if not data:
                return False
            got += len(data)
    except OSError:
        return False
    return True


def mapped(
    port: int, server: Address, kind: int = socket.SOCK_STREAM
) -> tuple[Address, socket.socket]:
    """The public address of a port, as a STUN server sees it, and the socket that keeps it."""
    sock = socket.socket(socket.AF_INET, kind)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("", port))
        sock.settimeout(3)
        sock.connect(server)
        sock.sendall(struct.pack("!HHI12s", 1, 0, 0x2112A442, os.urandom(12)))
        return _mapped_address(sock.recv(2048)), sock
    except BaseException:
        sock.close()
        raise


def _mapped_address(message: bytes) -> Address:
    at = 20
    while at < len(message):
        kind, length = struct.unpack_from("!HH", message, at)
        if kind == 0x0020:
            port, host = struct.unpack_from("!HI", message, at + 6)
            return socket.inet_ntoa((host ^ 0x2112A442).to_bytes(4, "big")), port ^ 0x2112
        at += 4 + length + (-length) % 4
    raise ValueError("no mapped address in the STUN response")


def free_port() -> int:
    with contextlib.closing(punching_socket(0)) as sock:
        port: int = sock.getsockname()[1]
        return port
