"""Every waiting time of a stream, from its handshake to its last word, in one place."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Timing:
    """Waiting times in seconds.

    A machine is dead when its kernel is silent, and that shows soon. A process that says nothing
    while its machine answers is slow: stopped, starved, on a fourteenth of a processor.

    Attributes:
        handshake: a connection on which nothing has been heard for so long is not the peer's.
        verify_grace: a connection that is being verified when the attempt's time is up may take
            this long to end (like the next two by our own progress),
        peer_grace: and this long when it leads to an address of the peer, who may be starved: to
            give it up and begin anew would only make more for both to do.
        nomination_grace: one that is verified: the peer is there, and will say whether it takes it;
            or its connection ends, or its machine is found dead.
        ping: an idle direction sends a PING this often, by an end that does not listen: it passes
            on to a slow reader, its window may be shut, and PINGs that stay away mean death.
        idle_ping: the same by one that listens: there the kernel's keep-alive finds a dead machine,
            and the PING says that the process lives and keeps the NATs' mappings.
        hasty_ping: the same to a peer of a release that took 10 s of silence for death.
        unanswered: a machine that has acknowledged nothing of what is due for so long is dead.
        silence: a process that has said nothing for so long is given up, though its machine answers
            (PUNCH_STALL_TIMEOUT).
        linger: the most that an end waits, when all is said, for the other to hang up.
        last_word: the most that a failed end waits for the other to have heard the reason, which
            comes behind all the payload that is still on the way to a slow reader.
        goodbye: the same for an end that was stopped: whoever stopped it does not wait for long.
        object_look_least, object_look_most: between two looks for an object of the S3 route, from
            the first to the last of a minute without news; from then on ever longer.
        object_retry: for so long a failing S3 is tried again, on top of what boto3 does itself.
        object_withdrawal: the most that taking back unread objects may take.
    """

    handshake: float = 60.0
    verify_grace: float = 1.0
    peer_grace: float = 10.0
    nomination_grace: float = 60.0
    ping: float = 10.0
    idle_ping: float = 30.0
    hasty_ping: float = 3.0
    unanswered: float = 15.0
    silence: float = 300.0
    linger: float = 10.0
    last_word: float = 10.0
    goodbye: float = 0.5
    object_look_least: float = 0.05
    object_look_most: float = 0.5
    object_retry: float = 8.0
    object_withdrawal: float = 1.5

    def patient(self, silence: float) -> Timing:
        """The same, with another patience for a process that stands still."""
        return replace(self, silence=silence)

    def scaled(self, factor: float) -> Timing:
        """The same, `factor` times as long; for tests."""
        return Timing(**{f.name: getattr(self, f.name) * factor for f in fields(self)})


TIMING = Timing()
