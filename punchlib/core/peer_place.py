"""What stands in the peer's place in the store: whether it counts, and whether anybody is there."""

from __future__ import annotations

from collections.abc import Collection

from punchlib.config import Config
from punchlib.core import records
from punchlib.core.records import Record, RecordError, Withdrawal
from punchlib.errors import (
    REPORTED,
    NoRoute,
    PeerNotVerified,
    PunchError,
    StreamBroken,
    escape,
)

#: Said of a record whose owner may be gone.
SILENT = "what stood there before us has not moved, so it may be an earlier run's"

_ERRORS: dict[int, type[PunchError]] = {
    kind.exit_code: kind for kind in (NoRoute, PeerNotVerified, StreamBroken)
}


class PeerPlace:
    """The peer's place.

    Args:
        slot: key and label.
        config: this process's configuration.
        name: the connection, for messages.

    Attributes:
        text: what was last found there, whatever it is.
        record: the peer's record; None while there is none that counts.
        problem: why what is there does not count, for people.
        met: the side of the last record that counted; "" when there is nobody to tell anything.
        at_first: what stood there when we came.
        proved: somebody was there, at one time.
    """

    def __init__(self, slot: tuple[str, str], config: Config, name: str) -> None:
        self.slot = slot
        self.text: str | None = None
        self.record: Record | None = None
        self.problem = ""
        self.met = ""
        self.at_first: str | None = None
        self.proved = False
        self._config = config
        self._name = name

    def take(self, text: str | None, sides: Collection[str]) -> None:
        """Takes what is there now; a stale record or garbage is remembered, no more.

        Args:
            text: what is there.
            sides: all of ours so far.

        Raises:
            NoRoute, PeerNotVerified, StreamBroken: the peer had met us, and gave up.
            PeerNotVerified: it is not signed by our job key, or too old for us.
            WireMismatch: it is too new for us.
        """
        self.text, self.record = text, None
        if text is None:
            return
        scope = records.signature_scope(*self.slot)
        try:
            found = records.parse(text, scope=scope, job_key=self._config.job_key)
        except RecordError as exc:
            self.problem = f"what is there is no record: {escape(str(exc), 200)}"
            return
        if isinstance(found, Withdrawal):
            self._take_withdrawal(found, sides)
        elif found.is_v1 and (knob := self._config.v1_refused_by):
            raise PeerNotVerified(
                f"{self._name}: the peer is an old (v1) pashlib, and {knob} refuses it",
                next_step=f"upgrade the peer, or allow it: unset {knob.partition('=')[0]}",
            )
        else:
            self.problem = ""
            self.record = found
            self.met = found.side
            self.proved |= found.is_v1 or self.lives(sides)

    def lives(self, sides: Collection[str]) -> bool:
        """Somebody is there: what is there came after us, or answers one of ours."""
        if self.text is None:
            return False
        answers = self.record is not None and self.record.tried in sides
        return answers or self.text != self.at_first

    def dismiss(self, problem: str = "") -> None:
        """The record does not count any more, though it stands there."""
        self.record = None
        self.problem = problem or self.problem

    def _take_withdrawal(self, said: Withdrawal, sides: Collection[str]) -> None:
        if said.met in sides:
            self.met = ""  # there is nobody left to tell
            kind = _ERRORS.get(said.exit_code, NoRoute)
            raise kind(
                f"{self._name}: {REPORTED}{said.cause.reason}",
                reported_by_peer=True,
                cause=said.cause,
            )
        self.problem = "there is only what an earlier run left"
