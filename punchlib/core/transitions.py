"""The order of things in an agreement (`core/agreement.py`), in one table, and what it commands.

docs/diagrams/agreement.md is drawn from the table.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from punchlib.config import Security
from punchlib.core.records import Record
from punchlib.core.simultaneous_open import Plan
from punchlib.errors import PunchError


class State(enum.Enum):
    """Where this end stands."""

    GATHERING = "opening ports and registering"
    WAITING = "waiting for the peer's record"
    TRYING = "making an attempt"
    LOOKING = "reading the peer's record again"
    PAUSING = "starved, so not at once"
    CONNECTED = "connected"
    FAILED = "failed"


class What(enum.Enum):
    """What happened, as far as the order of things is concerned."""

    PEER = "a record of the peer that we have not tried"
    NOBODY = "no record that counts"
    AGAIN = "the peer has tried our record, or has not moved"
    STARVED = "the same, and we stood still"
    SPENT = "everything was tried with that record"
    ATTEMPT_FAILED = "the attempt's time is up"
    PAUSE_OVER = "the pause is over"
    MAPPING_LOST = "our mapping has changed"
    NOMINATED = "a connection is verified and nominated"
    OVER = "the deadline, a withdrawal, a refusal, or no route"


_UNDER_WAY = (State.GATHERING, State.WAITING, State.TRYING, State.LOOKING, State.PAUSING)

TRANSITIONS: dict[tuple[State, What], State] = {
    (State.GATHERING, What.PEER): State.TRYING,
    (State.GATHERING, What.NOBODY): State.WAITING,
    (State.GATHERING, What.SPENT): State.WAITING,
    (State.WAITING, What.PEER): State.TRYING,
    (State.WAITING, What.NOBODY): State.WAITING,
    (State.WAITING, What.MAPPING_LOST): State.GATHERING,
    (State.TRYING, What.NOMINATED): State.CONNECTED,
    (State.TRYING, What.ATTEMPT_FAILED): State.LOOKING,
    (State.TRYING, What.PEER): State.TRYING,
    (State.TRYING, What.NOBODY): State.WAITING,
    (State.TRYING, What.AGAIN): State.GATHERING,
    (State.LOOKING, What.PEER): State.TRYING,
    (State.LOOKING, What.NOBODY): State.WAITING,
    (State.LOOKING, What.AGAIN): State.GATHERING,
    (State.LOOKING, What.STARVED): State.PAUSING,
    (State.PAUSING, What.PEER): State.TRYING,
    (State.PAUSING, What.NOBODY): State.WAITING,
    (State.PAUSING, What.AGAIN): State.GATHERING,
    (State.PAUSING, What.PAUSE_OVER): State.GATHERING,
    (State.PAUSING, What.MAPPING_LOST): State.GATHERING,
    **{(state, What.OVER): State.FAILED for state in _UNDER_WAY},
}


@dataclass(frozen=True)
class Register:
    """Gather, and leave a record.

    Attributes:
        attempt: which one of ours it is for, from 1.
        tried: the side of the peer's record with which the one before failed.
        refuse_v1: not where an old peer's record stands: it must find us holding.
    """

    attempt: int
    tried: str
    refuse_v1: bool


@dataclass(frozen=True)
class Wait:
    """Wait until what stands in the peer's place changes.

    Attributes:
        seconds: for so long only; None: until then.
        show: our record is not in the store yet; leave it there first (`on_shown`).
    """

    seconds: float | None = None
    show: bool = False


@dataclass(frozen=True)
class Look:
    """Read what stands in the peer's place."""


@dataclass(frozen=True)
class Try:
    """Make an attempt, and give it up when the peer's record changes.

    Attributes:
        plan: how.
        peer: the peer's record.
        security: what both ends ask for.
        behind: the peer has fewer attempts behind it, so it is about to fail, too.
        show: leave our record in the store once we hold (`on_shown`): the peer is an old one.
    """

    plan: Plan
    peer: Record
    security: Security
    behind: bool = False
    show: bool = False


@dataclass(frozen=True)
class Fail:
    """Give up.

    Attributes:
        error: to raise.
        word: what a peer that we have met is told. It says nothing of what was found at the
            addresses in its record: whoever wrote that may be looking around through us.
    """

    error: PunchError
    word: str


Command: TypeAlias = Register | Wait | Look | Try | Fail
