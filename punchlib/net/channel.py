"""A channel carries the frames of one stream to a verified peer.

`net.verifying` makes one of a connected TCP socket. A route that is no connection (objects in S3)
implements `Channel` itself.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import fcntl
import socket
import ssl
import struct
import termios
from typing import NamedTuple, Protocol, TypeAlias

from punchlib.core.frames import (
    HEADER_SIZE,
    FrameHeader,
    FrameType,
    decode_header,
    encode_header,
)
from punchlib.core.liveness import Signs, machine_is_silent
from punchlib.errors import PeerNotVerified, PunchError, StreamBroken
from punchlib.net import tls
from punchlib.net.readiness import Readiness
from punchlib.net.sockets import TCP_RTO_MAX_MS

Buffer: TypeAlias = bytes | bytearray | memoryview

# The head of struct tcp_info (linux/tcp.h), which only ever grows at its end: eight bytes, of which
# two count retransmits and probes; rto, ato, snd_mss, rcv_mss; unacked, sacked, lost, retrans,
# fackets; and in ms the time since data was sent, an ACK was sent, data came and an ACK came.
_TCP_INFO = struct.Struct("=8B13I")

#: Milliseconds: the longest that the kernel waits before it asks again for an acknowledgement. Its
#: own is 120 s, and it waits ever longer between probes of a shut window, also while each is
#: answered: after minutes behind a slow reader a machine's death would show minutes later.
ASKS_AGAIN_MS = 5000

#: The kernel asks an idle peer for an acknowledgement after seconds, again after a pause of some,
#: and ends the connection when it has asked so often in vain.
KEEP_ALIVE_IDLE, KEEP_ALIVE_PAUSE, KEEP_ALIVE_PROBES = 6, 3, 3
#: After which a connection that has ended without a word of the peer has ended for its silence.
_SILENT = KEEP_ALIVE_IDLE + KEEP_ALIVE_PAUSE * KEEP_ALIVE_PROBES
_TCP_CLOSE = 7

#: How much payload is copied to join its header, so that both leave as one full TLS record.
_JOINED = 16384 - HEADER_SIZE


class Frame(NamedTuple):
    """A frame that came. The payload is only good until the next one is received."""

    type: FrameType
    payload: Buffer


class Channel(Protocol):
    """Frames to and from a verified peer.

    One task receives at a time; any task may send, frames never mix. Every failure of the way
    itself is a `StreamBroken`.
    """

    @property
    def description(self) -> str:
        """The way and the peer, for people."""

    @property
    def patient(self) -> bool:
        """The peer takes a machine's silence for death, and its process's only after minutes."""

    @property
    def sock(self) -> socket.socket | None:
        """The connection underneath; None for a route that is none."""

    @property
    def splices(self) -> SocketChannel | None:
        """Itself, where the bytes on its socket are the payload's own; else they are copied."""

    def signs_of_life(self) -> Signs:
        """What is known now of whether the peer lives."""

    async def send(self, kind: FrameType, payload: Buffer = b"") -> None:
        """Sends one whole frame; waits while the way is full."""

    async def receive(self) -> Frame:
        """Waits for the next frame."""
        ...

    async def receive_header(self) -> FrameHeader:
        """Waits for the next frame's header; its payload must be read next."""
        ...

    def has_more(self) -> bool:
        """Something that the peer said is here and not yet read."""
        ...

    async def read_exactly(self, size: int) -> Buffer:
        """Reads `size` bytes of payload."""
        ...

    async def read_ready(self, view: memoryview) -> int:
        """Reads payload that is there, at least one byte, into `view`; waits for the first."""
        ...

    async def flush(self) -> None:
        """Waits until all that was sent is out of this process's hands."""

    async def finish(self) -> None:
        """Says that nothing more will be sent, and waits until the peer has said the same."""

    def close(self) -> None:
        """Lets go of everything, at once. May be called again."""


class SocketChannel:
    """A channel over one TCP connection, plain or TLS.

    Attributes:
        sock: the connection; whoever splices uses it, inside `frame`.
        frame: `async with` it to send one whole frame.
        verified: the peer has shown that it accepts us (a TLS client learns that late).
    """

    def __init__(self, sock: socket.socket, *, patient: bool = True) -> None:
        self.sock: socket.socket = sock
        self.patient = patient
        self.verified = not isinstance(sock, ssl.SSLSocket) or sock.server_side
        self.frame = _Frame()
        self.description = describe(sock)
        self._ready = Readiness(sock.fileno())
        self._least = 1
        self._pending = array.array("i", [0])
        self._header = memoryview(bytearray(HEADER_SIZE))

    @property
    def splices(self) -> SocketChannel | None:
        return None if isinstance(self.sock, ssl.SSLSocket) else self

    def signs_of_life(self) -> Signs:
        numbers = self._tcp_info()
        now = asyncio.get_running_loop().time()
        since = self._ready.reading_since
        return Signs(
            sent=now - self.frame.left_at,
            sending=self.frame.locked,
            waiting=None if since is None else now - since,
            heard=numbers[19] / 1000,
            kernel=True,
            answered=numbers[20] / 1000,
            outstanding=numbers[12],
            retransmits=numbers[2],
            probes=numbers[3],
        )

    async def send(self, kind: FrameType, payload: Buffer = b"") -> None:
        view = memoryview(payload)
        async with self.frame:
            await self.write(encode_header(kind, len(view)) + view[:_JOINED])
            if len(view) > _JOINED:
                await self.write(view[_JOINED:])

    async def receive(self) -> Frame:
        header = await self.receive_header()
        return Frame(header.type, await self.read_exactly(header.size))

    async def receive_header(self) -> FrameHeader:
        """Waits for the next frame's header; its payload must be read next.

        Raises:
            StreamBroken: the connection broke, or what came is no header.
            PeerNotVerified: the peer turned us away.
        """
        # An attempt in vain raises, which costs several times as much as asking.
        if self.splices is not None and not self.has_more():
            await self.wait_readable()
        view = self._header
        while view:
            view = view[await self.read(view) :]
        self.verified = True
        return decode_header(self._header)

    def has_more(self) -> bool:
        fcntl.ioctl(self.sock, termios.FIONREAD, self._pending)
        inside = self.sock.pending() if isinstance(self.sock, ssl.SSLSocket) else 0
        return bool(self._pending[0] or inside)

    async def read_exactly(self, size: int) -> Buffer:
        """Reads `size` bytes."""
        data = bytearray(size)
        view = memoryview(data)
        while view:
            view = view[await self.read(view) :]
        return data

    async def read(self, view: memoryview) -> int:
        """Reads what is there, at least one byte, into `view`; waits while there is nothing."""
        if not (count := await self.read_some(view)):
            raise self.closed_by_peer()
        return count

    async def read_ready(self, view: memoryview) -> int:
        """Like `read`, and goes on while there is more: a TLS record is far less than `view`."""
        filled = await self.read(view)
        try:
            while filled < len(view) and (count := self.sock.recv_into(view[filled:])):
                filled += count
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            raise self.translate(error) from error
        return filled

    async def read_some(self, view: memoryview) -> int:
        """The same, but an end of the connection is no error and reads as 0 bytes."""
        while True:
            try:
                return self.sock.recv_into(view)
            except (BlockingIOError, ssl.SSLWantReadError):
                await self.wait_readable()
                continue
            except ssl.SSLWantWriteError:
                await self.wait_writable()
                continue
            except OSError as error:
                raise self.translate(error) from error

    async def write(self, view: Buffer, flags: int = 0) -> None:
        """Writes all of `view`; inside `frame` only. `flags` are send(2)'s, for plain sockets."""
        view = memoryview(view)
        while view:
            try:
                view = view[self.sock.send(view, flags) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                await self.wait_writable()
            except ssl.SSLWantReadError:
                # Only a key update does that, and whoever receives reads it.
                await asyncio.sleep(0)
            except OSError as error:
                raise self.translate(error) from error

    def wait_readable(self, least: int = 1) -> asyncio.Future[None]:
        """Is done when bytes of the peer are here, or its end; the silence counts from here.

        Args:
            least: so many bytes, or as many as the connection's buffers hold (SO_RCVLOWAT).
        """
        if least != self._least:
            self._least = least
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
        return self._ready.readable()

    def wait_writable(self) -> asyncio.Future[None]:
        """Is done when there is room in the socket."""
        return self._ready.writable()

    async def flush(self) -> None:
        """Whole frames are in the kernel when they are sent, which goes on without us."""

    async def finish(self) -> None:
        raw = self.sock
        try:
            # On an SSLSocket this also drops the TLS layer: what still comes is not looked at.
            raw.shutdown(socket.SHUT_WR)
            while True:
                try:
                    if not raw.recv(65536):
                        return
                except BlockingIOError:
                    await self.wait_readable()
        except OSError as error:
            raise self.translate(error) from error

    def close(self) -> None:
        self._ready.close()
        self.sock.close()

    def translate(self, error: OSError) -> PunchError:
        """What a failed call on the socket means."""
        if isinstance(error, ssl.SSLError):
            return tls.translate(error, verified=self.verified)
        if isinstance(self.sock, ssl.SSLSocket):
            tls.forget_errors()  # or our siblings would fail of it
        if error.errno == errno.ETIMEDOUT and (given_up := self._given_up()):
            return given_up
        return StreamBroken(f"the connection broke: {error.strerror or error} ({self.description})")

    def closed_by_peer(self) -> PunchError:
        """What an end of the connection means where more was due."""
        if given_up := self._given_up():  # TLS reads an end where the kernel says ETIMEDOUT
            return given_up
        if not self.verified:
            return PeerNotVerified(f"the peer turned us away ({self.description})")
        return StreamBroken(
            f"the peer closed the connection before the end of the stream ({self.description})"
        )

    def _given_up(self) -> PunchError | None:
        """The error of a connection that our kernel has ended, for it heard nothing; else None.

        Whose peer has said an end is left in another state.
        """
        try:
            numbers = self._tcp_info()
        except OSError:
            return None  # we have closed it
        if numbers[0] != _TCP_CLOSE or numbers[20] < 1000 * (_SILENT - KEEP_ALIVE_PAUSE):
            return None
        error = machine_is_silent(_SILENT)
        error.message += f" ({self.description})"
        return error

    def _tcp_info(self) -> tuple[int, ...]:
        info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        return _TCP_INFO.unpack(info)


class _Frame:
    """The turn to send one whole frame, as an asynchronous context manager.

    A frame that is left by an exception is torn: nothing that follows could be understood, so
    nothing may follow.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.left_at = self._loop.time()
        self._lock = asyncio.Lock()
        self._torn = False

    @property
    def locked(self) -> bool:
        return self._lock.locked()

    async def __aenter__(self) -> None:
        await self._lock.acquire()
        if self._torn:
            self._lock.release()
            raise StreamBroken("the connection broke in the middle of a frame")

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._torn = kind is not None
        self.left_at = self._loop.time()
        self._lock.release()


def tune(sock: socket.socket) -> None:
    """Socket options of every stream: no delay for small frames, and death noticed soon.

    No TCP_USER_TIMEOUT: Linux also applies it to a window that stays shut although every probe is
    answered, so it would take a slow reader for a dead one. `core.liveness` tells the two apart.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE_PAUSE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEP_ALIVE_PROBES)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, ASKS_AGAIN_MS)


def describe(sock: socket.socket) -> str:
    """Both addresses of a connection, for people."""
    try:
        (here, port), (there, peer_port) = sock.getsockname()[:2], sock.getpeername()[:2]
    except OSError:
        return "not connected"
    return f"{here}:{port} ↔ {there}:{peer_port}"
