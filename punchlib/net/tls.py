"""TLS 1.3 between two processes that know each other's certificate, and no authority.

Each end trusts exactly the certificate in the peer's rendezvous record. A process has one
certificate for all its connections, so the certificate alone would let two connections of the same
pair of processes be crossed: the client's server name carries the sides of both ends, which are
new on every attempt, and the server refuses any other.
"""

from __future__ import annotations

import functools
import hmac
import os
import ssl
from typing import TYPE_CHECKING

from punchlib.errors import PeerNotVerified, PunchError, StreamBroken, WireMismatch

if TYPE_CHECKING:
    import socket

    from punchlib.core.handshake import Terms

#: X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name.
_NO_CHECK_TIME = 0x200000
#: What OpenSSL says when the bytes are no TLS at all, or an older one.
_NO_TLS = (
    "WRONG_VERSION_NUMBER",
    "UNSUPPORTED_PROTOCOL",
    "HTTP_REQUEST",
    "UNEXPECTED_MESSAGE",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
    "UNKNOWN_PROTOCOL",
)


def wrap(sock: socket.socket, terms: Terms) -> ssl.SSLSocket:
    """A TLS socket over a connected, non-blocking one (which is then detached); no I/O yet.

    The receiver is the server, whoever dialled. The handshake is the caller's to drive.
    """
    if terms.my_identity is None or not terms.peer_cert:
        raise PeerNotVerified("an encrypted stream needs the certificates of both ends")
    identity = terms.my_identity
    context = _context(terms.sending, identity.cert_der, identity.key_pem, terms.peer_cert)
    if terms.sending:
        return context.wrap_socket(
            sock, do_handshake_on_connect=False, server_hostname=terms.server_name
        )
    wrapped = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
    assert isinstance(wrapped, _Server)
    wrapped.expected_name = terms.server_name
    return wrapped


class _Server(ssl.SSLSocket):
    """The receiver's end.

    Attributes:
        expected_name: the only one that it answers to.
    """

    expected_name = ""


def _check_name(sock: object, name: str | None, _: object) -> int | None:
    expected = isinstance(sock, _Server) and name == sock.expected_name
    return None if expected else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME


@functools.lru_cache(maxsize=64)
def _context(sending: bool, cert_der: bytes, key_pem: bytes, peer_cert: bytes) -> ssl.SSLContext:
    """One for all connections and attempts with one peer: making it takes a millisecond."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if sending else ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    # The certificate is the record's, byte for byte; what our clock says of its dates is nothing.
    context.verify_flags |= _NO_CHECK_TIME
    context.load_verify_locations(cadata=peer_cert)
    _load(context, cert_der, key_pem)
    if not sending:
        context.num_tickets = 0  # nothing is ever resumed
        context.sslsocket_class = _Server
        context.sni_callback = _check_name
    return context


def verify(sock: ssl.SSLSocket, terms: Terms) -> None:
    """After the handshake: the certificate is the record's, byte for byte.

    Raises:
        PeerNotVerified: it is another one.
    """
    shown = sock.getpeercert(binary_form=True) or b""
    if not hmac.compare_digest(shown, terms.peer_cert):
        raise PeerNotVerified("the peer's certificate is not the one in its rendezvous record")


def translate(error: ssl.SSLError, *, verified: bool) -> PunchError:
    """What a TLS failure means; `verified` when the peer had shown before that it accepts us."""
    reason = error.reason or str(error)
    if verified and "ALERT" in reason:
        return StreamBroken(f"the peer gave up on the encrypted stream ({reason})")
    if verified:
        return StreamBroken(f"the encrypted stream was damaged on its way ({reason})")
    if isinstance(error, ssl.SSLCertVerificationError):
        return PeerNotVerified(
            f"the peer's certificate is not the one in its rendezvous record ({reason})"
        )
    if reason in _NO_TLS:
        return WireMismatch(
            f"expected TLS 1.3, got something else ({reason})",
            next_step="see that both nodes run the same release and the same PUNCH_SECURITY",
        )
    if "UNRECOGNIZED_NAME" in reason:
        return PeerNotVerified("this connection leads to another attempt of the peer")
    if "ALERT" in reason:
        return PeerNotVerified(f"the peer refused our certificate ({reason})")
    return PeerNotVerified(f"the TLS handshake failed ({reason})")


def forget_errors() -> None:
    """Empties OpenSSL's error queue of this thread, after a system call failed inside it.

    The queue is the thread's, not the connection's, and CPython ≥3.12 leaves it filled when it
    turns an entry into an OSError (cpython issues 127257 and 148594): the next call on any other
    connection would then report this one's broken pipe instead of "try again".
    """
    try:
        # A call that fails for a reason of its own, and clears the queue.
        _SCRATCH.set_ciphers("NO-SUCH-CIPHER")
    except ssl.SSLError:
        return


_SCRATCH = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _load(context: ssl.SSLContext, cert_der: bytes, key_pem: bytes) -> None:
    """Loads certificate and key, which OpenSSL takes only from a file: one in memory."""
    fd = os.memfd_create("identity")
    try:
        os.write(fd, key_pem + ssl.DER_cert_to_PEM_cert(cert_der).encode())
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
