"""What happens to a connection on its way, for whoever wants to know: `pashlib` prints it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from punchlib.config import Route
from punchlib.core.candidates import TransportAddress


@dataclass(frozen=True)
class Spec:
    """One connection to make.

    Attributes:
        key: KEY as the script gives it.
        me, peer: the labels of the two ends under the key. They are roles, not hosts.
        sending: this end sends the stream.
    """

    key: str
    me: str
    peer: str
    sending: bool

    def __str__(self) -> str:
        return f"{self.key} {'send' if self.sending else 'recv'}"


@dataclass(frozen=True)
class StunAnswered:
    """Our own addresses are known, as far as they can be; said once, before we register.

    Attributes:
        local, external: our address, and the same as the peer should see it.
        trouble: why no STUN server told, where we wanted to punch and cannot; else "".
    """

    spec: Spec
    local: TransportAddress
    external: TransportAddress
    trouble: str = ""


@dataclass(frozen=True)
class Registered:
    """Our record of this attempt is in the store."""

    spec: Spec
    attempt: int


@dataclass(frozen=True)
class PeerSeen:
    """The peer's record is there; `old` for one that speaks the old (v1) wire."""

    spec: Spec
    external: TransportAddress
    old: bool


@dataclass(frozen=True)
class AttemptStarted:
    """Both ends' records make an attempt.

    Attributes:
        attempt: ours, from 1.
        technique: how it connects.
        external, peer: both ends' addresses as the other sees them.
    """

    spec: Spec
    attempt: int
    technique: str
    external: TransportAddress
    peer: TransportAddress


@dataclass(frozen=True)
class AttemptFailed:
    """Its time was up; `tried` says what the pairs met."""

    spec: Spec
    attempt: int
    tried: str


@dataclass(frozen=True)
class MappingLost:
    """Our NAT has given our port another address: what we registered is no longer true."""

    spec: Spec


@dataclass(frozen=True)
class Connected:
    """The connection is nominated.

    Attributes:
        route: the way it took.
        attempt: the attempt that made it, from 1.
        how: how it was made, in words.
        local, remote: its two ends as this machine sees them; "-" over S3.
        setup_ms: from when both ends were registered to verified.
    """

    spec: Spec
    route: Route
    attempt: int
    how: str
    local: str
    remote: str
    setup_ms: float


Event: TypeAlias = (
    StunAnswered | Registered | PeerSeen | AttemptStarted | AttemptFailed | MappingLost | Connected
)
