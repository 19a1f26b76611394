"""From a connected TCP socket to a verified channel: who is there, and which connection is taken.

TLS 1.3 for "encrypted", greetings for "authenticated" (docs/wire.md).
"""

from __future__ import annotations

import asyncio
import socket
import ssl

from punchlib.config import Security
from punchlib.core.frames import FrameType, Incoming, Outgoing
from punchlib.core.handshake import CONFIRMATION_SIZE, GREETING_SIZE, Greeter, Terms
from punchlib.core.liveness import Liveness
from punchlib.core.timing import TIMING, Timing
from punchlib.errors import PeerNotVerified, PeerSilent
from punchlib.net import tls
from punchlib.net.channel import Channel, SocketChannel, tune
from punchlib.net.watching import watched


async def open_channel(
    sock: socket.socket, terms: Terms, *, timing: Timing = TIMING
) -> SocketChannel:
    """Verifies the peer at the other end of a connection, in both directions.

    It owns the socket from the call on: when it fails or is cancelled the socket is closed. Both
    ends may run it on several connections of one attempt at the same time; `nominate` picks one.

    Args:
        sock: connected and non-blocking.
        terms: what both ends agreed on through the rendezvous.
        timing: waiting times.

    Raises:
        PeerNotVerified: somebody else, or nobody, answered.
        WireMismatch: the other end speaks something else.
        StreamBroken: the connection broke.
    """
    tune(sock)
    channel = _prepare(sock, terms)
    now = asyncio.get_running_loop().time()
    try:
        async with watched(channel, Liveness(timing, now, ping=None, silence=timing.handshake)):
            if isinstance(channel.sock, ssl.SSLSocket):
                await _shake_hands(channel, channel.sock, terms)
            else:
                await _greet(channel, terms)
        return channel
    except PeerSilent as silent:
        channel.close()
        raise PeerNotVerified(f"the other end did not identify itself: {silent.message}") from None
    except OSError as error:
        channel.close()
        raise channel.translate(error) from error
    except BaseException:
        channel.close()
        raise


async def nominate(channel: Channel, *, sending: bool, timing: Timing = TIMING) -> None:
    """Agrees with the peer on this channel: the sender says PING, the receiver answers PING.

    The answer is also the sender's first proof that the receiver has accepted it: a TLS client's
    handshake ends before the server has checked it.

    Raises:
        StreamBroken: the connection broke; the peer may have chosen another.
        PeerNotVerified: the peer turned us away.
    """
    async with watched(channel, Liveness(timing, asyncio.get_running_loop().time(), ping=None)):
        if sending:
            await channel.send(FrameType.PING)
            Outgoing().hear(*await channel.receive())
        else:
            Incoming().hear(*await channel.receive())
            await channel.send(FrameType.PING)


def _prepare(sock: socket.socket, terms: Terms) -> SocketChannel:
    """The channel that is to be verified."""
    try:
        inner = tls.wrap(sock, terms) if terms.security == Security.ENCRYPTED else sock
        return SocketChannel(inner, patient=terms.revision > 0)
    except BaseException:
        sock.close()
        raise


async def _shake_hands(channel: SocketChannel, sock: ssl.SSLSocket, terms: Terms) -> None:
    while True:
        try:
            sock.do_handshake()
            break
        except ssl.SSLWantReadError:
            await channel.wait_readable()
        except ssl.SSLWantWriteError:
            await channel.wait_writable()
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise PeerNotVerified("the other end hung up in the middle of the handshake") from error
        except ssl.SSLError as error:
            raise tls.translate(error, verified=False) from error
    tls.verify(sock, terms)


async def _greet(channel: SocketChannel, terms: Terms) -> None:
    greeter = Greeter(terms)
    # A stranger gets no byte of ours, and an end in mid-greeting is its verdict on us.
    channel.verified = False
    if terms.sending:
        await channel.write(greeter.greeting())
    said = bytearray()
    while len(said) < GREETING_SIZE:
        piece = memoryview(bytearray(GREETING_SIZE - len(said)))
        said += piece[: await channel.read(piece)]
        greeter.verify(bytes(said))
    if terms.sending:
        await channel.write(greeter.confirmation())
    else:
        await channel.write(greeter.greeting())
        greeter.verify_confirmation(bytes(await channel.read_exactly(CONFIRMATION_SIZE)))
    channel.verified = True
