"""Dead or slow: what the signs of life mean. No sockets, and time is an argument.

Dead is a machine whose kernel acknowledges nothing; keep-alive probes, and a PING where a direction
is idle, see to it that an acknowledgement is always due. A process that stands while its machine
answers is slow, and is waited for much longer. Where we ourselves stood still, silence is no sign:
what came meanwhile has not been read yet, so the peer gets the same time again.

Driven as a protocol core: sleep until `get_timer()`, then `handle_timer()` with what is known now.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from punchlib.core.timing import Timing
from punchlib.errors import PeerSilent

#: So many times in vain must the kernel have said it again: one packet may be lost, and a window
#: that was shut with data on its way has the kernel wait for a minute before it asks again.
_RETRANSMITS = 2
_PROBES = 3
#: So many PINGs that did not come make one lost probe enough.
_PINGS_MISSED = 2.5
#: How often a probe that nobody has answered yet is looked at again, by the silence that kills.
_LOOKS = 3


def machine_is_silent(seconds: float) -> PeerSilent:
    """The error of a machine whose kernel has acknowledged nothing for so long."""
    return PeerSilent(
        f"the peer's machine is dead or unreachable: no acknowledgement for {seconds:g} s"
    )


class Signs(NamedTuple):
    """Signs of life, as a route knows them at one moment. Times are in seconds up to now.

    Attributes:
        sent: since a frame has last left.
        sending: one is on its way out and not yet whole.
        waiting: for which somebody has waited to hear something; None while nobody does, for then
            silence says nothing.
        heard: since the last byte came, read or unread; infinite where only `waiting` tells.
        kernel: the peer's kernel can be told from its process, by what follows.
        answered: since its last acknowledgement of anything.
        outstanding: segments that it has not acknowledged.
        retransmits: how often the first of them was sent again.
        probes: probes of a shut window that it has not answered.
    """

    sent: float = 0.0
    sending: bool = False
    waiting: float | None = None
    heard: float = math.inf
    kernel: bool = False
    answered: float = 0.0
    outstanding: int = 0
    retransmits: int = 0
    probes: int = 0


class Liveness:
    """One end's view of whether the other lives.

    Args:
        timing: waiting times.
        now: in seconds, by any clock that does not jump.
        ping: an idle direction sends a PING this often; None where there are none, on the old wire
            and before the first frame.
        idle_ping: the same while we listen; by default no other.
        silence: of a process whose machine answers; `Timing.silence` by default.
    """

    def __init__(
        self,
        timing: Timing,
        now: float,
        *,
        ping: float | None,
        idle_ping: float | None = None,
        silence: float | None = None,
    ) -> None:
        self._silence = timing.silence if silence is None else silence
        self._unanswered = timing.unanswered
        # Who was told to be less patient says so often enough for a peer that was told the same.
        self._ping = None if ping is None else min(ping, self._silence / 3)
        self._idle_ping = min(idle_ping or ping or 0.0, self._silence / 3)
        self._period = min(idle_ping or ping or timing.ping, self._silence / 3, self._unanswered)
        self._due = now + self._period
        self._counted_from = now
        self._probed_from: float | None = None

    def get_timer(self) -> float:
        """When `handle_timer` is to be called next."""
        return self._due

    def handle_timer(self, now: float, signs: Signs) -> bool:
        """Looks at the signs; whether a PING is to be sent now.

        Raises:
            PeerSilent: the peer is dead, or must be given up.
        """
        if now - self._due > self._period:
            self._counted_from, self._probed_from = now, None
        counted = now - self._counted_from
        silent = min(signs.waiting or 0.0, signs.heard, counted)
        unanswered = self._unanswered_for(now, signs, counted, silent)
        if unanswered >= self._unanswered:
            raise machine_is_silent(self._unanswered)
        if silent >= self._silence:
            alive = "the peer's machine answers, its process" if signs.kernel else "the peer"
            raise PeerSilent(f"{alive} has said nothing for {self._silence:g} s")
        pause, ping = self._period, False
        # What is on its way asks for an answer as well as any PING, and its age must show.
        if self._ping is not None and not signs.sending and not signs.outstanding:
            often = self._ping if signs.waiting is None else self._idle_ping
            ping = signs.sent >= often
            pause = min(pause, often - (0.0 if ping else signs.sent))
        if unanswered:
            pause = min(pause, self._unanswered - unanswered)
        if self._probed_from is not None:
            pause = min(pause, self._unanswered / _LOOKS)
        if silent:
            pause = min(pause, self._silence - silent)
        self._due = now + max(pause, self._period / 100)
        return ping

    def _unanswered_for(self, now: float, signs: Signs, counted: float, silent: float) -> float:
        """Seconds for which the peer's kernel has owed us an answer, at the least."""
        if signs.outstanding or not signs.probes:
            self._probed_from = None
            # What is outstanding left us at the last frame or before it, and after the last answer
            # or before that.
            asked = signs.outstanding > 0 and signs.retransmits >= _RETRANSMITS
            return min(signs.answered, signs.sent, counted) if asked else 0.0
        # The kernel does not tell when it sent the probe, so it counts from our first look at it.
        if self._probed_from is None or signs.answered < now - self._probed_from:
            self._probed_from = now
        missed = self._ping is not None and silent >= _PINGS_MISSED * self._ping
        return now - self._probed_from if signs.probes >= _PROBES or missed else 0.0
