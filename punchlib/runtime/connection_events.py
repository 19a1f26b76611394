"""What happens to a connection, as events for the node (docs/events.md, "connection", "stream")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from punchlib.core.candidates import TransportAddress
from punchlib.core.events import (
    AttemptFailed,
    AttemptStarted,
    Connected,
    Event,
    MappingLost,
    PeerSeen,
    Registered,
    Spec,
    StunAnswered,
)
from punchlib.errors import PunchError
from punchlib.pump.stats import Step, Tell
from punchlib.runtime.events import tell

if TYPE_CHECKING:
    from punchlib.runtime.events import Value


def tell_of(event: Event) -> None:
    """Tells of what happened to a connection on its way."""
    match event:
        case StunAnswered(_, local, external, trouble):
            name, facts = "stun_answered", _address("local", local) | _address("external", external)
            facts |= {"error.message": trouble} if trouble else {}
        case Registered(_, attempt):
            name, facts = "registered", {"punch.attempt": attempt}
        case PeerSeen(_, external, old):
            name, facts = "peer_seen", _address("peer", external) | {"punch.peer.old": old}
        case AttemptStarted(_, attempt, technique, _, peer):
            name, facts = "attempt", {"punch.attempt": attempt, "punch.technique": technique}
            facts |= _address("peer", peer)
        case AttemptFailed(_, attempt, tried):
            name, facts = "attempt_failed", {"punch.attempt": attempt, "error.message": tried}
        case MappingLost():
            name, facts = "mapping_lost", {}
        case Connected():
            name = "connected"
            facts = {
                "punch.route": event.route.value,
                "punch.attempt": event.attempt,
                "punch.technique": event.how,
                "punch.setup.duration": event.setup_ms / 1000,
                "punch.local": event.local,
                "punch.peer": event.remote,
            }
    tell(f"connection.{name}", _of(event.spec) | facts)


def teller(spec: Spec) -> Tell:
    """Tells how far the stream of a connection is."""

    def step(which: Step, total: int) -> None:
        tell(f"stream.{which}", _of(spec) | {"punch.bytes": total})

    return step


def tell_started(spec: Spec, fifo: str) -> None:
    """Tells that a connection is to be made, and for which FIFO."""
    tell("connection.started", _of(spec) | {"file.path": fifo})


def tell_failed(spec: Spec, error: Exception) -> None:
    """Tells that a connection, or its stream, has failed."""
    message = error.message if isinstance(error, PunchError) else str(error)
    facts: dict[str, Value] = {"error.type": type(error).__name__, "error.message": message}
    tell("connection.failed", _of(spec) | facts)


def _of(spec: Spec) -> dict[str, Value]:
    return {
        "punch.key": spec.key,
        "punch.me": spec.me,
        "punch.peer_label": spec.peer,
        "punch.direction": "send" if spec.sending else "recv",
    }


def _address(which: str, address: TransportAddress) -> dict[str, Value]:
    return {
        f"network.{which}.address": address.host,
        f"network.{which}.port": address.port,
    }
