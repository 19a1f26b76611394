"""The lines in which `pashlib` tells how a connection came about; people grep for them."""

from __future__ import annotations

from punchlib.core.events import AttemptStarted, Connected, Event, PeerSeen, StunAnswered


def lines_of(event: Event) -> list[str]:
    """What is said of an event, if anything."""
    match event:
        case StunAnswered(spec, local, external, trouble):
            said = [f"Get local_addr: {local} external_addr: {external}"]
            if trouble:
                why = f"no STUN server told our address ({trouble})"
                said.append(f"pashlib: {spec}: not punching; {why}")
            return said
        case PeerSeen(spec, _, old) if old:
            return [
                f"pashlib: {spec}: the peer speaks the old wire (v1): nothing is authenticated "
                "or encrypted, and a dead peer looks like the end of the stream"
            ]
        case AttemptStarted():
            return [f"connecting from {event.external} to {event.peer}"]
        case Connected():
            return [
                f"pashlib: {event.spec} connected route={event.route} addr={event.local} "
                f"peer={event.remote} setup_ms={event.setup_ms:.0f} "
                f"attempt={event.attempt} how={event.how.replace(' ', '-')}"
            ]
        case _:
            return []
