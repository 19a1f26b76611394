"""The objects of the S3 route, sealed: nobody can read, change, exchange, replay or reorder them.

Whoever may write to the bucket stands between the two ends, as a network does. Each direction of
each attempt has a key of its own, and each object its number; so an object fits in one place only.

    encrypted       AES-256-GCM (NIST SP 800-38D) of the frames; the nonce is the number, 12 bytes
    authenticated   HMAC-SHA256 over the number, 8 bytes, and the frames; then the frames

The key comes by HKDF (RFC 5869) from the job key, or KEY where there is none, and in `encrypted`
also from the ECDH secret of both ends' certificates, each of which the other trusts as TLS does.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from punchlib.config import Security
from punchlib.core.handshake import Terms, hkdf
from punchlib.errors import PeerNotVerified, StreamBroken

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_MAC_SIZE = 32


class Sealer:
    """Seals one direction's objects, or opens them.

    Args:
        terms: of one end.
        outgoing: what this end writes; else what it reads.
    """

    def __init__(self, terms: Terms, *, outgoing: bool) -> None:
        direction = "s" if terms.sending == outgoing else "r"
        info = f"punch v2 s3 {direction} {terms.server_name} {terms.key}".encode()
        secret = terms.job_key or terms.key.encode()
        self._encrypted = terms.security == Security.ENCRYPTED
        if self._encrypted:
            secret = _shared_secret(terms) + secret
        self._key = hkdf(secret, info)

    def seal(self, number: int, frames: bytes) -> bytes:
        """An object's content."""
        if self._encrypted:
            return _aes(self._key).encrypt(number.to_bytes(12), frames, None)
        return self._mac(number, frames) + frames

    def open(self, number: int, content: bytes) -> memoryview:
        """An object's frames.

        Raises:
            StreamBroken: it is not what the peer wrote under this number.
        """
        if self._encrypted:
            from cryptography.exceptions import InvalidTag

            try:
                return memoryview(_aes(self._key).decrypt(number.to_bytes(12), content, None))
            except InvalidTag:
                pass
        else:
            frames = memoryview(content)[_MAC_SIZE:]
            if hmac.compare_digest(self._mac(number, frames), content[:_MAC_SIZE]):
                return frames
        raise StreamBroken(
            f"object {number} of the S3 route is not what the peer wrote: "
            "exchanged, replayed or damaged",
            next_step="look for who else may write to the bucket that AWS_BUCKET names",
        )

    def _mac(self, number: int, frames: bytes | memoryview) -> bytes:
        mac = hmac.new(self._key, number.to_bytes(8), "sha256")
        mac.update(frames)
        return mac.digest()


def _aes(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _shared_secret(terms: Terms) -> bytes:
    """What only the owners of the two certificates can compute (ECDH over P-256)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if terms.my_identity is None or not terms.peer_cert:
        raise PeerNotVerified("an encrypted stream needs the certificates of both ends")
    mine = serialization.load_pem_private_key(terms.my_identity.key_pem, None)
    theirs = x509.load_der_x509_certificate(terms.peer_cert).public_key()
    if not isinstance(mine, ec.EllipticCurvePrivateKey) or not isinstance(
        theirs, ec.EllipticCurvePublicKey
    ):
        raise PeerNotVerified("the peer's certificate has a key of another kind than ours")
    return mine.exchange(ec.ECDH(), theirs)
