"""Two `punch ping KEY` find each other: neither is told which of the two ends it is.

There are two seats under the key, `a` and `b`, in the rendezvous table. Who comes sits down on one
of them by chance and says who it is. Who finds that somebody has sat down on its seat takes the
other one. What an earlier run left there does not count: a pair has met when each says that it sees
the other, and the dead say nothing new. No clock is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import time
from dataclasses import dataclass

from punchlib.errors import PunchError, RendezvousTimeout
from punchlib.rendezvous.store import RendezvousStore, Slot

SEATS = ("a", "b")
#: Seconds between looks, at first and at last.
FIRST_LOOK, LAST_LOOK = 0.1, 1.0
#: Seconds for which the table keeps a seat.
KEPT = 3600
#: Seconds to free our seat.
GOODBYE = 2.0
#: An old (v1) program that uses the key reads a record by these two.
_ADDRESSES = {"local_addr": "127.0.0.1:9", "external_addr": "127.0.0.1:9", "v": 2}


@dataclass(frozen=True)
class Pair:
    """Two that have met.

    Attributes:
        key: of their connections: nobody else's.
        first: this end is the first of the two; the other is not.
    """

    key: str
    first: bool


@dataclass(frozen=True)
class _Seated:
    """Who sits there, and whom it sees."""

    token: str
    sees: str = ""

    def text(self) -> str:
        return json.dumps({**_ADDRESSES, "ping": self.token, "sees": self.sees})

    @classmethod
    def parse(cls, text: str | None) -> _Seated | None:
        """None where nobody sits, or something that is none of us."""
        try:
            fields = json.loads(text or "")
            return cls(str(fields["ping"]), str(fields["sees"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None


class Pairing:
    """One end's search for the other; `async with` it: its seat is free in the end.

    Args:
        store: where they meet.
        key: what both were given.
        patience: seconds to wait for the other.
    """

    def __init__(self, store: RendezvousStore, key: str, patience: float) -> None:
        self._store = store
        self._given, self._key = key, f"ping/{key}"
        self._patience = patience
        self._me = secrets.token_hex(8)
        self._seat = random.choice(SEATS)
        self._sees = self._said = ""

    async def __aenter__(self) -> Pairing:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._said:
            # What stays does no harm, and whoever stops us does not wait for a dead table.
            with contextlib.suppress(PunchError, TimeoutError):
                async with asyncio.timeout(GOODBYE):
                    await self._store.remove(Slot(self._key, self._seat), self._said)

    async def meet(self) -> Pair:
        """Waits for the other.

        Raises:
            RendezvousTimeout: nobody came.
            RendezvousError: the table cannot be used.
        """
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + self._patience, FIRST_LOOK
        other = await self._sit("")
        while True:
            if other is not None and other.token != self._me:
                if other.sees == self._me and self._sees == other.token:
                    return self._pair(other)
                if self._sees != other.token:
                    other = await self._sit(other.token)
                    continue
            if loop.time() > deadline:
                raise RendezvousTimeout(
                    f"nobody else pinged {self._given!r} within {self._patience:.0f} s",
                    next_step=f"start `punch ping {self._given}` on the other machine too, with the"
                    " same AWS_REGION and PUNCH_TABLE",
                )
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, LAST_LOOK)
            mine, other = await self._look()
            if mine is None or mine.token != self._me:
                self._seat = self._opposite
                other = await self._sit("")

    @property
    def _opposite(self) -> str:
        return SEATS[1 - SEATS.index(self._seat)]

    async def _sit(self, sees: str) -> _Seated | None:
        """Says who we are and whom we see; who sits opposite, at that moment."""
        text = _Seated(self._me, sees).text()
        answer = await self._store.register(
            Slot(self._key, self._seat),
            text,
            self._opposite,
            expires=int(time.time()) + KEPT,
            refuse_v1_peer=False,
        )
        self._sees, self._said = sees, text
        return _Seated.parse(answer.peer)

    async def _look(self) -> tuple[_Seated | None, _Seated | None]:
        slots = [Slot(self._key, seat) for seat in (self._seat, self._opposite)]
        found = await self._store.read(slots)
        mine, other = (_Seated.parse(found.get(slot)) for slot in slots)
        return mine, other

    def _pair(self, other: _Seated) -> Pair:
        tokens = (self._me, other.token) if self._seat == "a" else (other.token, self._me)
        return Pair(f"{self._key}/{'-'.join(tokens)}", self._seat == "a")
