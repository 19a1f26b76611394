"""One end's part in the rendezvous: the record it leaves, and the peer's, as far as it counts."""

from __future__ import annotations

import asyncio
import contextlib
import time

from punchlib.config import Config
from punchlib.core import records
from punchlib.core.records import GRACE, Record, RecordError, Withdrawal
from punchlib.errors import (
    REPORTED,
    NoRoute,
    PeerNotVerified,
    PunchError,
    RendezvousError,
    StreamBroken,
    escape,
)
from punchlib.net import sockets
from punchlib.net.connection import Spec
from punchlib.rendezvous.store import RendezvousStore, Slot
from punchlib.stopping import stopped

_ERRORS: dict[int, type[PunchError]] = {
    kind.exit_code: kind for kind in (NoRoute, PeerNotVerified, StreamBroken)
}


#: Seconds for the store to take our record back, or the reason in its place; less when we are
#: being stopped.
LEAVE_TIME, STOP_TIME = 5.0, 1.0


class Meeting:
    """What both ends have said under one key.

    Attributes:
        expires: seconds since the epoch; what we say holds until then.
        mine: our record.
        visible: it is in the store.
        peer: the peer's record; None while there is none that counts.
        peer_text: what was last found in the peer's place, whatever it is.
        problem: why what is there does not count, for people.

    A pair of records, ours and the peer's, is one attempt: both ends see the same two in the end,
    and each acts on what it sees now. Nobody waits for the other to make the first move.
    """

    def __init__(self, store: RendezvousStore, config: Config, spec: Spec) -> None:
        self._store = store
        self._config = config
        self._spec = spec
        scoped = f"{config.job_id}/{spec.key}" if config.job_id else spec.key
        self.mine_slot = Slot(scoped, spec.me)
        self.peer_slot = Slot(scoped, spec.peer)
        self.expires = int(time.time() + config.timeout) + GRACE
        self.mine = Record(sockets.SOMEWHERE, sockets.SOMEWHERE)
        self.visible = False
        self.peer: Record | None = None
        self.peer_text: str | None = None
        self.problem = ""
        self._found: str | None = None
        self._texts: list[str] = []  # what we have put into the store; the last may not be there
        self._sides: set[str] = set()
        self._met = ""

    async def register(self, mine: Record, *, refuse_v1_peer: bool) -> None:
        """Leaves our record, in place of an earlier one, and takes the peer's."""
        self.mine = mine
        self._sides.add(mine.side)
        text = self._signed(mine)
        self._texts.append(text)
        answer = await self._store.register(
            self.mine_slot,
            text,
            self._spec.peer,
            expires=self.expires + GRACE,
            refuse_v1_peer=refuse_v1_peer,
        )
        self.visible = answer.accepted
        self._texts = [text] if answer.accepted else []
        self._found = answer.peer
        self.take(answer.peer)

    @property
    def second(self) -> bool:
        """Our registration found the record of the peer that counts now: the peer's did not."""
        return self.peer_text == self._found

    @property
    def failed_for_peer(self) -> bool:
        """The peer has tried what we registered, in vain."""
        return self.peer is not None and self.peer.tried == self.mine.side

    async def look(self) -> None:
        """Takes what is in the peer's place now."""
        self.take((await self._store.read([self.peer_slot])).get(self.peer_slot))

    def take(self, text: str | None) -> None:
        """Takes the peer's record; a stale one or garbage is remembered and waited out.

        Raises:
            NoRoute, PeerNotVerified, StreamBroken: the peer had met us, and gave up.
            PeerNotVerified: it is not signed by our job key, or too old for us.
            WireMismatch: it is too new for us.
        """
        self.peer_text, self.peer = text, None
        if text is None:
            return
        scope = records.signature_scope(*self.peer_slot)
        try:
            record = records.parse(text, scope=scope, job_key=self._config.job_key)
        except RecordError as exc:
            self.problem = f"what is there is no record: {escape(str(exc), 200)}"
            return
        if isinstance(record, Withdrawal):
            if record.met in self._sides:
                self._met = ""  # there is nobody left to tell
                kind = _ERRORS.get(record.exit_code, NoRoute)
                raise kind(f"{self._spec}: {REPORTED}{escape(record.reason)}")
            self.problem = "there is only what an earlier run left"
            return
        if not record.is_fresh(time.time()):
            age = time.time() - record.ts / 1000
            self.problem = f"there is only a record of an earlier run, written {age:.0f} s ago"
            return
        if record.is_v1 and (knob := self._config.v1_refused_by):
            raise PeerNotVerified(
                f"{self._spec}: the peer is an old (v1) pashlib, and {knob} refuses it",
                next_step=f"upgrade the peer, or allow it: unset {knob.partition('=')[0]}",
            )
        self.problem = ""
        self.peer = record
        self._met = record.side

    async def leave(self, error: BaseException | None = None) -> None:
        """Takes our record back; what fails here no longer counts.

        Args:
            error: why we give up. A peer whose record we have seen is told, or it would wait for
                us until its deadline.
        """
        instead = ""
        if self._met and error is not None:
            instead = self._signed(Withdrawal(self._met, *_why(error)))
        with contextlib.suppress(RendezvousError, TimeoutError):
            stopping = isinstance(error, asyncio.CancelledError)
            async with asyncio.timeout(STOP_TIME if stopping else LEAVE_TIME):
                for text in self._texts:
                    await self._store.remove(self.mine_slot, text, instead=instead)

    def _signed(self, record: Record | Withdrawal) -> str:
        scope = records.signature_scope(*self.mine_slot)
        return record.to_json(scope=scope, job_key=self._config.job_key)


def _why(error: BaseException) -> tuple[int, str]:
    """The exit code and the reason that a withdrawal tells the peer."""
    if isinstance(error, PunchError):
        return error.exit_code, error.message
    if isinstance(error, asyncio.CancelledError):
        return NoRoute.exit_code, stopped(error)
    return NoRoute.exit_code, f"{type(error).__name__}: {error}"
