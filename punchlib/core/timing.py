"""The waiting times of a stream once its connection is verified."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Timing:
    """Waiting times in seconds.

    Attributes:
        handshake: the most that a handshake may take once its first byte was due.
        ping: an idle direction sends a PING this often.
        silence: nothing heard for so long means a dead peer.
        linger: the most that an end waits, when all is said, for the other to hang up.
        last_word: the most that a failed end waits for the other to have heard the reason, which
            comes behind all the payload that is still on the way to a slow reader.
        goodbye: the same for an end that was stopped: whoever stopped it does not wait for long.
    """

    handshake: float = 10.0
    ping: float = 3.0
    silence: float = 10.0
    linger: float = 2.0
    last_word: float = 10.0
    goodbye: float = 0.5

    def scaled(self, factor: float) -> Timing:
        """The same, `factor` times as long; for tests."""
        return Timing(**{f.name: getattr(self, f.name) * factor for f in fields(self)})


TIMING = Timing()
