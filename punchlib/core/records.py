"""The rendezvous record: what one end tells the other (docs/wire.md, "The record").

A record is a JSON string. Its first two fields, `local_addr` and `external_addr`, are all that an
old (v1) peer writes and reads; a record without `v` is such a peer's. Fields and candidate types
that we do not know are ignored; a higher `v` is an error that names both versions.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from punchlib import names
from punchlib.config import Security
from punchlib.core.candidates import Candidate, CandidateType, TransportAddress
from punchlib.core.handshake import REVISION
from punchlib.errors import Cause, PeerNotVerified, WireMismatch

Choice = TypeVar("Choice", bound=StrEnum)

VERSION = 2
#: A record outlives its owner's deadline by this many seconds, for clocks that differ.
GRACE = 60
#: The longest reason that a withdrawal carries, in characters.
MAX_REASON = 1000
#: The longest text that is read as a record, in characters; ours have 1,200.
MAX_SIZE = 1 << 16
#: What a v2 record's JSON text contains and a v1 record's never does.
V2_MARK = '"v":'


class RecordError(ValueError):
    """The text is not a rendezvous record."""


class Mapping(StrEnum):
    """How our NAT maps a port towards different destinations (RFC 4787 section 4.1)."""

    NONE = "none"  # there is no NAT
    INDEPENDENT = "independent"
    DEPENDENT = "dependent"  # on the address, or on address and port
    UNKNOWN = "unknown"


class Filtering(StrEnum):
    """Whom it lets in through a mapping (RFC 4787 section 5)."""

    INDEPENDENT = "independent"
    DEPENDENT = "dependent"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Nat:
    """What an end knows of its own NAT (RFC 5780 says how to learn it)."""

    mapping: Mapping = Mapping.UNKNOWN
    filtering: Filtering = Filtering.UNKNOWN


@dataclass(frozen=True)
class Record:
    """One end's registration.

    Attributes:
        local_addr: our own transport address, for people and old peers.
        external_addr: the address under which the peer should see us.
        version: 1 for an old peer, else 2.
        side: 16 hex digits, new on every registration.
        attempt: which attempt of its owner this is, from 1.
        tried: the side of the peer's record with which the owner's attempt before this failed.
        ts: when it was written, ms since the epoch, by its owner's clock.
        expires: from when on an older release does not dial it, s since the epoch, by its owner's
            clock. We do not read it: clocks are wrong (core/agreement.py).
        security: the least that the owner accepts.
        cert: the owner's certificate, DER; empty when it has none.
        candidates: where it can be reached; the n-th srflx is its n-th punching port.
        nat: what it knows of its NAT.
        revision: of what its owner says within this version (`handshake.REVISION`).
    """

    local_addr: TransportAddress
    external_addr: TransportAddress
    version: int = VERSION
    side: str = ""
    attempt: int = 1
    tried: str = ""
    ts: int = 0
    expires: int = 0
    security: Security = Security.ENCRYPTED
    cert: bytes = b""
    candidates: tuple[Candidate, ...] = field(default=())
    nat: Nat = field(default=Nat())
    revision: int = REVISION

    @property
    def is_v1(self) -> bool:
        return self.version == 1

    def of_type(self, kind: CandidateType) -> tuple[Candidate, ...]:
        return tuple(c for c in self.candidates if c.type is kind)

    def to_json(self, *, scope: str = "", job_key: bytes = b"") -> str:
        """The text to store; signed when there is a job key.

        Args:
            scope: what the signature is bound to, key and label (see `signature_scope`).
            job_key: the run's shared secret, or empty.
        """
        fields: dict[str, object] = {
            "local_addr": str(self.local_addr),
            "external_addr": str(self.external_addr),
            "v": self.version,
            "revision": self.revision,
            "side": self.side,
            "attempt": self.attempt,
            "tried": self.tried,
            "ts": self.ts,
            "expires": self.expires,
            "security": self.security,
            "cert": base64.b64encode(self.cert).decode(),
            "nat": {"mapping": self.nat.mapping, "filtering": self.nat.filtering},
            "candidates": [{"type": str(c.type), "addr": str(c.address)} for c in self.candidates],
        }
        return _text(fields, scope, job_key)


@dataclass(frozen=True)
class Withdrawal:
    """What an end leaves in its record's place when it gives up on a peer that it had met.

    Attributes:
        met: the side of the peer's record: nobody else is meant, and no later run.
        exit_code: what the owner's failure means.
        cause: why, and the node that said it first.
    """

    met: str
    exit_code: int
    cause: Cause

    def to_json(self, *, scope: str = "", job_key: bytes = b"") -> str:
        """The text to store; see `Record.to_json`."""
        gone = {
            "met": self.met,
            "exit_code": self.exit_code,
            "reason": self.cause.reason[:MAX_REASON],
        }
        if self.cause.origin:
            gone["origin"] = self.cause.origin
        return _text({"v": VERSION, "gone": gone}, scope, job_key)


def signature_scope(key: str, label: str) -> str:
    """A record's signature holds for one key and one label only: it cannot be moved."""
    return f"{key}\n{label}"


def parse(text: str, *, scope: str = "", job_key: bytes = b"") -> Record | Withdrawal:
    """Reads a peer's record, or what it left in its place.

    Args:
        text: the attribute's value.
        scope: key and label that the record must be signed for.
        job_key: when not empty, the record must carry a valid signature under it.

    Raises:
        RecordError: not a record.
        WireMismatch: its version is above ours.
        PeerNotVerified: a job key is set and the record's signature is missing or wrong.
    """
    if len(text) > MAX_SIZE:
        raise RecordError(f"a record of {len(text)} characters")
    try:
        return _parse(text, scope, job_key)
    except RecursionError as exc:
        raise RecordError("a record that is too deep") from exc


def _parse(text: str, scope: str, job_key: bytes) -> Record | Withdrawal:
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise RecordError("not a JSON object")
        if "gone" in fields:
            return _withdrawal(fields, scope, job_key)
        local = TransportAddress.parse(str(fields["local_addr"]))
        external = TransportAddress.parse(str(fields["external_addr"]))
    except KeyError as exc:
        raise RecordError(f"the record lacks {exc}") from exc
    except ValueError as exc:
        raise RecordError(f"unreadable record: {exc}") from exc
    if "v" not in fields:
        if job_key:
            raise PeerNotVerified(
                "the peer's record is an old (v1) one, and this run has a job key",
                next_step="upgrade the peer, or run without a job key (PUNCH_JOB_KEY)",
            )
        return Record(local, external, version=1)
    version = fields["v"]
    if not isinstance(version, int) or version < 2:
        raise RecordError(f"the record's version is {version!r}")
    if version > VERSION:
        raise WireMismatch(
            f"the peer speaks version {version}, this punchlib speaks up to {VERSION}",
            next_step="install the same punchlib on all nodes",
        )
    _verify(fields, scope, job_key)
    try:
        return _from_fields(fields, local, external)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise RecordError(f"unreadable record: {type(exc).__name__}: {exc}") from exc


def _withdrawal(fields: dict[str, object], scope: str, job_key: bytes) -> Withdrawal:
    try:
        _verify(fields, scope, job_key)
    except PeerNotVerified as exc:
        # Most likely an earlier run's, with another job key. It must not stop this one.
        raise RecordError("a withdrawal that is not signed with this run's job key") from exc
    gone = fields["gone"]
    if not isinstance(gone, dict):
        raise RecordError("gone is not an object")
    cause = names.heard(str(gone.get("reason", "")), str(gone.get("origin", "")))
    return Withdrawal(str(gone.get("met", "")), _int(gone.get("exit_code", 0)), cause)


def _from_fields(
    fields: dict[str, object], local: TransportAddress, external: TransportAddress
) -> Record:
    side = str(fields["side"])
    if len(side) != 16 or bytes.fromhex(side).hex() != side:
        raise ValueError("side is not 16 hex digits")
    nat = fields.get("nat")
    nat = nat if isinstance(nat, dict) else {}
    candidates = fields.get("candidates", [])
    if not isinstance(candidates, list):
        raise ValueError("candidates is not a list")
    return Record(
        local,
        external,
        version=VERSION,
        revision=_int(fields.get("revision", 0)),
        side=side,
        attempt=_int(fields.get("attempt", 1)),
        tried=str(fields.get("tried", "")),
        ts=_int(fields.get("ts", 0)),
        expires=_int(fields.get("expires", 0)),
        # What we do not know is not weakened: the stronger one is asked for.
        security=_known(Security, fields.get("security"), Security.ENCRYPTED),
        cert=base64.b64decode(str(fields.get("cert", "")), validate=True),
        candidates=tuple(_candidates(candidates)),
        nat=Nat(
            _known(Mapping, nat.get("mapping"), Mapping.UNKNOWN),
            _known(Filtering, nat.get("filtering"), Filtering.UNKNOWN),
        ),
    )


def _candidates(items: list[object]) -> list[Candidate]:
    found = []
    for item in items[:32]:
        if not isinstance(item, dict):
            raise ValueError("a candidate is not an object")
        if item.get("type") in set(CandidateType):
            kind = CandidateType(str(item["type"]))
            found.append(Candidate(kind, TransportAddress.parse(str(item["addr"]))))
    return found


def _known(kind: type[Choice], value: object, otherwise: Choice) -> Choice:
    """What we know of the kind; a newer peer may say more."""
    return kind(value) if isinstance(value, str) and value in set(kind) else otherwise


def _int(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _text(fields: dict[str, object], scope: str, job_key: bytes) -> str:
    if job_key:
        fields["mac"] = _mac(fields, scope, job_key)
    return json.dumps(fields, separators=(",", ":"))


def _verify(fields: dict[str, object], scope: str, job_key: bytes) -> None:
    if not job_key:
        return
    given = str(fields.pop("mac", "")).encode("utf-8", "replace")  # of a str it takes ASCII only
    if not hmac.compare_digest(given, _mac(fields, scope, job_key).encode()):
        raise PeerNotVerified(
            "the peer's rendezvous record is not signed with this run's job key",
            next_step="look for another run, or another party, writing to the same table",
        )


def _mac(fields: dict[str, object], scope: str, job_key: bytes) -> str:
    # The fields as they were parsed, also the unknown ones, so that a newer peer's extra fields
    # are covered.
    canonical = json.dumps(fields, separators=(",", ":"), sort_keys=True)
    key = hmac.digest(job_key, b"punchlib record v2", hashlib.sha256)
    return hmac.digest(key, f"{scope}\n{canonical}".encode(), hashlib.sha256).hex()
