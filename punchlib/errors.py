"""Every error that punchlib raises on purpose, and the exit code that each one means.

    PunchError                  1  anything that failed
    ├── UsageError              2  wrong arguments, wrong environment, a FIFO that does not exist
    ├── RendezvousError         3  the store cannot be reached, or refuses
    │   └── RendezvousTimeout   3  the peer did not come before the deadline
    ├── NoRoute                 4  no way to the peer: every candidate pair and fallback failed
    ├── PeerNotVerified         5  somebody answered, but not the peer of the rendezvous
    │   └── WireMismatch        5  the peer speaks another protocol or version
    ├── StreamBroken            6  the stream ended before its END, or broke its own rules
    │   └── PeerSilent          6  the peer has been silent for so long that it must be dead
    ├── StorageError            1  S3 refused or failed
    └── JobFailed               1  a node of the job failed

130 and 143 are SIGINT and SIGTERM, as in a shell.
"""

from __future__ import annotations


class Cause:
    """The first cause of a failure, as it travels from machine to machine.

    No dataclass and no named tuple: either's import takes a good part of the time and of the memory
    that a `dgsh-tee` needs.

    Attributes:
        reason: as it was first said.
        origin: the node that said it first; "" where nobody named it.
    """

    __slots__ = ("origin", "reason")

    def __init__(self, reason: str, origin: str = "") -> None:
        self.reason = reason
        self.origin = origin

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cause):
            return False
        return (self.reason, self.origin) == (other.reason, other.origin)

    def __hash__(self) -> int:
        return hash((self.reason, self.origin))

    def __repr__(self) -> str:
        return f"Cause({self.reason!r}, {self.origin!r})"

    def said_by(self, node: str) -> Cause:
        """The same, by this node where it is nobody's yet."""
        return self if self.origin else Cause(self.reason, node)


class PunchError(Exception):
    """One message that names the culprit, and the next step for the user.

    Attributes:
        message: what failed, with the input or address that it failed on.
        next_step: what the user can do about it; may be empty.
        exit_code: the process exit code that this error means.
        code: what the service that refused calls it ("NoSuchKey"); "" where none did.
        may_pass: the same may go well when it is tried again from the start.
        reported_by_peer: True when it came from the other machine, which gave up first.
        cause: the first cause alone; that of a failure of our own has no origin yet.
    """

    exit_code = 1
    code = ""
    may_pass = False

    def __init__(
        self,
        message: str,
        *,
        next_step: str = "",
        reported_by_peer: bool = False,
        cause: Cause | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.reported_by_peer = reported_by_peer
        self.cause = cause or Cause(message)

    def __str__(self) -> str:
        return f"{self.message}\n  next: {self.next_step}" if self.next_step else self.message


class UsageError(PunchError):
    exit_code = 2


class RendezvousError(PunchError):
    exit_code = 3


class RendezvousTimeout(RendezvousError):
    may_pass = True


class NoRoute(PunchError):
    exit_code = 4


class PeerNotVerified(PunchError):
    exit_code = 5


class WireMismatch(PeerNotVerified):
    pass


#: How people are told of a reason that came from the other end. What a program must know stands
#: in `reported_by_peer` and `cause`.
REPORTED = "the peer reports: "


class StreamBroken(PunchError):
    """The stream is not whole.

    Attributes:
        at_byte: offset of the payload at which it broke, in bytes, or None when unknown.
    """

    exit_code = 6
    may_pass = True

    def __init__(
        self,
        message: str,
        *,
        next_step: str = "",
        at_byte: int | None = None,
        reported_by_peer: bool = False,
        cause: Cause | None = None,
    ) -> None:
        super().__init__(
            message, next_step=next_step, reported_by_peer=reported_by_peer, cause=cause
        )
        self.at_byte = at_byte


class PeerSilent(StreamBroken):
    """The peer has given no sign of life for so long that it must be dead."""


class StorageError(PunchError):
    pass


class JobFailed(PunchError):
    pass


def escape(text: str, limit: int = 2000) -> str:
    """Makes text from a peer safe to print: control characters escaped, length bounded."""
    shown = text[:limit]
    out = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in shown)
    return out + ("…" if len(text) > limit else "")
