"""Who is at the other end: the terms both ends agreed on, and the greetings of `authenticated`.

The sender speaks first. No payload flows before both ends know each other:

    sender ── greeting (128 bytes) ──▶ receiver
    sender ◀── greeting (128 bytes) ── receiver       the sender knows the receiver
    sender ── confirmation (32 bytes), frames ──▶     the receiver knows the sender

A greeting:

    0   8  magic
    8   1  version, 2
    9   1  role: 1 sender, 2 receiver
    10  6  zero
    16  8  the speaker's side
    24  8  the other's side
    32 32  nonce
    64 32  the nonce being answered; zero in the sender's
    96 32  HMAC-SHA256 of all the above

The confirmation is the HMAC of the receiver's greeting under a third key. It costs no round trip
(it goes with the first frames) and it makes a recorded greeting worthless: whoever replays the
sender's greeting cannot answer the receiver's fresh nonce.

The keys come by HKDF (RFC 5869) from the job key, or from KEY where there is none; then they keep
out who does not know KEY, no more (docs/security.md).
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass, field

from punchlib.config import Security
from punchlib.errors import PeerNotVerified, WireMismatch

MAGIC = b"\x93punch\r\n"
VERSION = 2
#: Of what is said within wire version 2, as the record announces it. 0: the first release. 1: the
#: S3 route's objects are sealed; a process's silence is no death for minutes.
REVISION = 1
GREETING_SIZE = 128
CONFIRMATION_SIZE = 32

_SENDER, _RECEIVER = 1, 2
_SIGNED = GREETING_SIZE - 32


@dataclass(frozen=True)
class Identity:
    """A process's certificate and private key: one for all its connections.

    Attributes:
        cert_der: the self-signed certificate, as it stands in the rendezvous record.
        key_pem: the private key. Never printed, never written to a disk.
    """

    cert_der: bytes
    key_pem: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Identity:
        """A fresh ECDSA P-256 identity.

        Its dates are wide, for clocks may be wrong by years; ours are not even looked at (tls.py).
        """
        # 50 ms of import that only `encrypted` needs.
        from datetime import UTC, datetime

        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "punch")])
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime(1950, 1, 1, tzinfo=UTC))
            .not_valid_after(datetime(2099, 12, 31, tzinfo=UTC))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(
            cert_der=certificate.public_bytes(serialization.Encoding.DER),
            key_pem=key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )


@dataclass(frozen=True)
class Terms:
    """What both ends of one connection agreed on through the rendezvous.

    Attributes:
        key: the rendezvous KEY, with its job scope.
        sending: this end sends the payload, and speaks first.
        my_side: 16 hex digits, new on every attempt.
        peer_side: the same of the peer.
        security: the stronger of what both records ask for.
        job_key: the secret of the job; b"" when there is none.
        my_identity: certificate and private key; needed by "encrypted".
        peer_cert: the certificate in the peer's record, DER; needed by "encrypted".
        revision: the lower of both ends' `REVISION`.
    """

    key: str
    sending: bool
    my_side: str
    peer_side: str
    security: Security = Security.ENCRYPTED
    job_key: bytes = field(default=b"", repr=False)
    my_identity: Identity | None = None
    peer_cert: bytes = b""
    revision: int = REVISION

    @property
    def server_name(self) -> str:
        """The name that binds a TLS connection to this attempt: sender's, then receiver's side."""
        return ".".join((*self.sides, "punch"))

    @property
    def sides(self) -> tuple[str, str]:
        """The sender's side, the receiver's."""
        mine, theirs = self.my_side, self.peer_side
        return (mine, theirs) if self.sending else (theirs, mine)


class Greeter:
    """One end of the greetings. Bytes in, bytes out; no I/O.

    The sender: `greeting()`, send it; `verify()` the answer; send `confirmation()`.
    The receiver: `verify()`; send `greeting()`; `verify_confirmation()`.
    """

    def __init__(self, terms: Terms, *, nonce: bytes | None = None) -> None:
        self._terms = terms
        self._role = _SENDER if terms.sending else _RECEIVER
        self._nonce = os.urandom(32) if nonce is None else nonce
        self._answered = bytes(32)
        self._receivers_greeting = b""

    def greeting(self) -> bytes:
        """What this end says of itself, `GREETING_SIZE` bytes."""
        signed = b"".join(
            (
                MAGIC,
                bytes((VERSION, self._role)),
                bytes(6),
                bytes.fromhex(self._terms.my_side),
                bytes.fromhex(self._terms.peer_side),
                self._nonce,
                self._answered,
            )
        )
        said = signed + self._mac(self._role, signed)
        if self._role == _RECEIVER:
            self._receivers_greeting = said
        return said

    def verify(self, said: bytes) -> None:
        """Checks the other end's greeting.

        Args:
            said: what came; fewer than `GREETING_SIZE` bytes are checked as far as they go, so
                that another protocol is recognised before it has sent 128 bytes.

        Raises:
            WireMismatch: no greeting of this version.
            PeerNotVerified: a greeting, but not from this connection's other end.
        """
        _check_prefix(said)
        if len(said) < GREETING_SIZE:
            return
        other = _RECEIVER if self._role == _SENDER else _SENDER
        if not hmac.compare_digest(self._mac(other, said[:_SIGNED]), said[_SIGNED:]):
            if said[9] == self._role:
                raise PeerNotVerified(
                    "both ends speak as the " + ("sender" if self._role == _SENDER else "receiver"),
                    next_step="one script must say send and the other recv for this key",
                )
            raise PeerNotVerified(
                "somebody answered who does not know the key of this connection",
                next_step="see that both nodes belong to the same run, with the same job key",
            )
        if said[9] != other or said[10:16] != bytes(6):
            raise PeerNotVerified("the peer's greeting is well signed but malformed")
        theirs, ours = said[16:24].hex(), said[24:32].hex()
        if (theirs, ours) != (self._terms.peer_side, self._terms.my_side):
            raise PeerNotVerified(
                f"the peer greets from side {theirs} to side {ours}; expected "
                f"{self._terms.peer_side} to {self._terms.my_side}",
                next_step="an old attempt answered, or a recording of one; the wait goes on",
            )
        if self._role == _SENDER:
            if said[64:96] != self._nonce:
                raise PeerNotVerified("the peer's greeting answers another greeting than ours")
            self._receivers_greeting = said
        else:
            self._answered = said[32:64]

    def confirmation(self) -> bytes:
        """The sender's proof that it has read the receiver's greeting."""
        return self._mac(0, self._receivers_greeting)

    def verify_confirmation(self, said: bytes) -> None:
        """Checks the sender's proof.

        Raises:
            PeerNotVerified: it was not made for our greeting.
        """
        if not hmac.compare_digest(self.confirmation(), said):
            raise PeerNotVerified("the greeting was genuine, but its confirmation is not: a replay")

    def _mac(self, role: int, data: bytes) -> bytes:
        secret = self._terms.job_key or self._terms.key.encode()
        info = b"punch v2 greeting %d " % role + self._terms.key.encode()
        return hmac.digest(hkdf(secret, info), data, "sha256")


def hkdf(secret: bytes, info: bytes, *, salt: bytes = b"punchlib", size: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869): `size` bytes of key from a secret, bound to `info`."""
    pseudorandom = hmac.digest(salt or bytes(hashlib.sha256().digest_size), secret, "sha256")
    out, block = b"", b""
    for counter in range(1, -(-size // 32) + 1):
        block = hmac.digest(pseudorandom, block + info + bytes((counter,)), "sha256")
        out += block
    return out[:size]


def _check_prefix(said: bytes) -> None:
    expected = f"expected a greeting of wire version {VERSION}"
    if said[: len(MAGIC)] == MAGIC[: len(said)]:
        if len(said) > len(MAGIC) and said[len(MAGIC)] != VERSION:
            raise WireMismatch(
                f"{expected}, got version {said[len(MAGIC)]}",
                next_step="run the same release of punchlib on all nodes",
            )
        return
    if said[:1] == b"\x16":
        got = "TLS: the other end wants `encrypted`"
    elif not any(said):
        got = "zeros: an old (v1) peer"
    else:
        got = repr(said[: len(MAGIC)])
    raise WireMismatch(f"{expected}, got {got}", next_step="see docs/wire.md")
