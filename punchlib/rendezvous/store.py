"""What a rendezvous store must do. Two ends meet under a key; each has a label."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Slot(NamedTuple):
    """Where one end's record lies."""

    key: str
    label: str


@dataclass(frozen=True)
class Registered:
    """The answer to a registration.

    Attributes:
        accepted: False when the peer's record is an old one and we had asked to hold first.
        peer: the peer's record text, as it was at the moment of our registration; None when
            there was none. Exactly one of two ends that register finds the other's.
    """

    accepted: bool
    peer: str | None


class RendezvousStore(Protocol):
    """Registration is one atomic step that overwrites our own record and tells the peer's."""

    async def ready(self) -> None:
        """Returns when a registration would go out at once."""
        ...

    async def register(
        self, mine: Slot, text: str, peer_label: str, *, expires: int, refuse_v1_peer: bool
    ) -> Registered:
        """Writes our record and reads the peer's, at once.

        Args:
            mine: our slot.
            text: our record.
            peer_label: the peer's label under the same key.
            expires: seconds since the epoch, by our clock, which may be wrong by a day: the store
                must not forget the record before, nor much before that by its own clock.
            refuse_v1_peer: write nothing when the peer's record is an old one: an old peer dials
                once, as soon as it sees ours, and must find us holding.

        Raises:
            RendezvousError: the store cannot be reached, or refuses.
        """
        ...

    async def read(self, slots: Iterable[Slot]) -> dict[Slot, str]:
        """Reads many records in as few calls as the store allows; absent ones are left out.

        Raises:
            RendezvousError: the store cannot be reached, or refuses.
        """
        ...

    async def remove(self, mine: Slot, text: str, *, instead: str = "") -> None:
        """Removes our record if it is still `text`: a re-run that has begun is not disturbed.

        Args:
            mine: our slot.
            text: our record.
            instead: what takes its place; "" for nothing.

        Raises:
            RendezvousError: the store cannot be reached, or refuses.
        """
        ...
