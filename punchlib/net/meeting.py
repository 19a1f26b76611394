"""One end's part in the store: the record it leaves there, and what is in the peer's place."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from punchlib.core.records import GRACE
from punchlib.errors import RendezvousError
from punchlib.rendezvous.store import Registered, RendezvousStore, Slot

#: Seconds for the store to take our record back, or the reason in its place; less when we are
#: being stopped.
LEAVE_TIME, STOP_TIME = 5.0, 1.0


class Meeting:
    """What both ends have said under one key.

    Args:
        store: where.
        mine, peer: the two slots.
        timeout: seconds for which we mean to stay.
        wall: the time of day, s since the epoch; what it says is for the store's and for an older
            peer's housekeeping only.

    Attributes:
        expires: seconds since the epoch, by our clock; what we say holds until then.
    """

    def __init__(
        self,
        store: RendezvousStore,
        mine: Slot,
        peer: Slot,
        *,
        timeout: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.peer = peer
        self.expires = int(wall() + timeout) + GRACE
        self._store = store
        self._mine = mine
        self._texts: list[str] = []  # what we have put into the store; the last may not be there

    async def register(self, text: str, *, refuse_v1_peer: bool) -> Registered:
        """Leaves our record, in place of an earlier one, and reads the peer's."""
        self._texts.append(text)
        answer = await self._store.register(
            self._mine,
            text,
            self.peer.label,
            expires=self.expires + GRACE,
            refuse_v1_peer=refuse_v1_peer,
        )
        self._texts = [text] if answer.accepted else []
        return answer

    async def look(self) -> str | None:
        """What is in the peer's place now."""
        return (await self._store.read([self.peer])).get(self.peer)

    async def leave(self, instead: str, *, stopping: bool) -> None:
        """Takes our record back; what fails here no longer counts.

        Args:
            instead: what takes its place: a peer whose record we have seen is told why we give up,
                or it would wait for us until its deadline.
            stopping: we are in a hurry.
        """
        with contextlib.suppress(RendezvousError, TimeoutError):
            async with asyncio.timeout(STOP_TIME if stopping else LEAVE_TIME):
                for text in self._texts:
                    await self._store.remove(self._mine, text, instead=instead)
