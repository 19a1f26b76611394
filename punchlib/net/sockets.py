"""The socket options of punching, by name (Linux; none needs root)."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct

from punchlib.core.candidates import TransportAddress, usable_host_address

IP_MINTTL = 21  # ip(7); the constant is missing from the socket module
TCP_RTO_MAX_MS = 44  # Linux 6.15; older kernels refuse it
NORMAL_TTL = 64
TCP_SYN_RECV = 3
TCP_ESTABLISHED = 1
#: A place that only the default route leads to (the dummy address of RFC 7600), to learn which
#: address of ours that route has.
SOMEWHERE = TransportAddress("192.0.0.8", 9)


def punching_socket(port: int = 0, *, host: str = "0.0.0.0") -> socket.socket:
    """A non-blocking TCP socket bound to a punching port.

    SO_REUSEADDR and SO_REUSEPORT let several sockets share the port: the one that talks to the
    STUN server and those that punch. With port 0 the kernel picks one that nobody has.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def start_connect(
    sock: socket.socket, remote: TransportAddress, ttl: int | None, min_ttl: int
) -> int:
    """Sends the SYN; returns 0 or EINPROGRESS when it is on its way, else the errno.

    With a `ttl` the SYN alone travels that far: the normal TTL is back before anything else
    leaves the socket, and `min_ttl` hides the "time exceeded" that the SYN draws.
    """
    if ttl is not None:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        sock.setsockopt(socket.IPPROTO_IP, IP_MINTTL, min_ttl)
    error = sock.connect_ex(tuple(remote))
    if ttl is not None:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, NORMAL_TTL)
    return 0 if error == errno.EINPROGRESS else error


def settle(sock: socket.socket) -> None:
    """Takes back what punching set, once the connection is up."""
    sock.setsockopt(socket.IPPROTO_IP, IP_MINTTL, 0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def tcp_state(sock: socket.socket) -> int:
    """The kernel's TCP state of the socket (first byte of struct tcp_info, tcp(7))."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
    return int(struct.unpack_from("B", info)[0])


def is_arriving(sock: socket.socket) -> bool:
    """Whether the peer's SYN has come: such a socket must not be replaced."""
    return tcp_state(sock) in (TCP_SYN_RECV, TCP_ESTABLISHED)


def abort(sock: socket.socket) -> None:
    """Closes with a RST, so that a losing connection leaves no TIME_WAIT on the punching port."""
    reset_at_close(sock)
    sock.close()


def reset_at_close(sock: socket.socket) -> None:
    """Its closing, whoever does it, will be a RST; nothing happens where that was already."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def local_address(towards: TransportAddress) -> str:
    """The address of ours from which packets to `towards` leave; nothing is sent.

    Raises:
        OSError: there is no route.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(tuple(towards))
        return str(probe.getsockname()[0])


def host_address(towards: TransportAddress) -> str | None:
    """The same, when a peer could reach it; None for link-local addresses and without a route."""
    try:
        address = local_address(towards)
    except OSError:
        return None
    return address if usable_host_address(address) else None
