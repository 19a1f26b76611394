"""What `punch doctor` finds: one line each, as data."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How bad it is; also how the command exits."""

    OK = "ok"
    WARN = "warn"  # it works, less well; or it could not be looked at
    FAIL = "fail"  # something does not work

    @property
    def exit_code(self) -> int:
        return tuple(Level).index(self)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. No field is empty but `next_step` of what is ok.

    Attributes:
        name: what was looked at, in a word or two; the same in every release.
        level: how it is.
        what: what was found, and what follows from it.
        next_step: what to do about it.
    """

    name: str
    level: Level
    what: str
    next_step: str = ""

    def __post_init__(self) -> None:
        if not self.name or not self.what or (self.level is not Level.OK and not self.next_step):
            raise ValueError(f"a finding with an empty field: {self}")

    def to_json(self) -> dict[str, str]:
        """As `--json` and a probe's answer have it: an ok without a next step has no such field."""
        out = {"name": self.name, "level": self.level.value, "what": self.what}
        return {**out, "next_step": self.next_step} if self.next_step else out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        """Reads one, of a node of any release.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        level = Level(data["level"])
        return cls(str(data["name"]), level, str(data["what"]), str(data.get("next_step", "")))


def ok(name: str, what: str) -> Finding:
    return Finding(name, Level.OK, what)


def warn(name: str, what: str, next_step: str) -> Finding:
    return Finding(name, Level.WARN, what, next_step)


def fail(name: str, what: str, next_step: str) -> Finding:
    return Finding(name, Level.FAIL, what, next_step)


def looked_at(name: str, look: Callable[[], Finding]) -> Finding:
    """What a look finds; a warn where it fails in a way that nobody expected.

    One check that cannot be made must not take the others with it.
    """
    try:
        return look()
    except Exception as error:
        if os.environ.get("PUNCH_DEBUG"):
            traceback.print_exc()
        what = f"could not be looked at: {type(error).__name__}: {error}"
        return warn(name, what, "look at it by hand; `punch --debug doctor` shows where it failed")


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level among them; ok when there are none."""
    return max((f.level for f in findings), key=lambda level: level.exit_code, default=Level.OK)
