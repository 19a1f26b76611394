"""The event that asks a node how it is, to be pinged, or to be warm; `node/probe.py` answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from punchlib.errors import UsageError
from punchlib.names import check_name, check_text, shown

_HEX = re.compile(r"([0-9a-fA-F]{2})*")
PROBES = ("doctor", "ping", "warm", "commands")
#: Connections of one ping.
MOST_PINGS = 1000
#: Seconds for which a worker may be held.
MOST_HELD = 60.0
#: Commands of one question.
MOST_COMMANDS = 1000


@dataclass(frozen=True)
class Probe:
    """An event that starts no script: it asks a node how it is, or to be pinged (node/probe.py).

    Attributes:
        kind: one of `PROBES`.
        key, job_id, job_key: of a ping; the secret is never shown.
        count: how many connections a ping makes at the most.
        seconds: for which a worker that is to be warm is held, so that others go to other workers.
        commands: names of commands that a script would run there.
    """

    kind: str
    key: str = ""
    job_id: str = ""
    job_key: str = field(default="", repr=False)
    count: int = 1
    seconds: float = 0.0
    commands: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"probe": self.kind}
        if self.kind == "ping":
            out |= {"key": self.key, "job_id": self.job_id, "job_key": self.job_key}
            out["count"] = self.count
        if self.kind == "warm":
            out["seconds"] = self.seconds
        if self.kind == "commands":
            out["commands"] = list(self.commands)
        return out

    @classmethod
    def from_json(cls, data: object) -> Probe | None:
        """Checks an event that may be one.

        Returns:
            None for any other event, which `Event.from_json` then looks at.

        Raises:
            UsageError: it is a probe, and something is wrong with it.
        """
        if not isinstance(data, Mapping) or "probe" not in data:
            return None
        kind = data["probe"]
        if kind not in PROBES:
            raise UsageError(
                f"this release knows no probe {shown(str(kind))}, but {' and '.join(PROBES)}",
                next_step="deploy the release of `punch` that asks",
            )
        if kind == "doctor":
            return cls(kind)
        if kind == "warm":
            seconds = data.get("seconds", 0.0)
            if type(seconds) not in (int, float) or not 0 <= seconds <= MOST_HELD:
                raise UsageError(f"the probe's `seconds` is no number from 0 to {MOST_HELD:g}")
            return cls(kind, seconds=float(seconds))
        if kind == "commands":
            names = data.get("commands")
            if not isinstance(names, list) or len(names) > MOST_COMMANDS:
                raise UsageError(f"the probe's `commands` is no list of up to {MOST_COMMANDS}")
            for name in names:
                if not isinstance(name, str):
                    raise UsageError("the probe's `commands` are no texts")
                check_text(name, "a command of the probe")
            return cls(kind, commands=tuple(names))
        key, count = data.get("key"), data.get("count", 1)
        job_id, job_key = data.get("job_id") or "", data.get("job_key") or ""
        if not isinstance(key, str) or not key:
            raise UsageError("a ping needs a `key`")
        if not isinstance(job_id, str) or not isinstance(job_key, str):
            raise UsageError("the ping's `job_id` and `job_key` must be strings")
        if not _HEX.fullmatch(job_key):
            raise UsageError("the ping's `job_key` is not hexadecimal")  # a secret: not shown
        if type(count) is not int or not 0 < count <= MOST_PINGS:
            raise UsageError(f"the ping's `count` is not a number from 1 to {MOST_PINGS}")
        check_text(key, "the ping's `key`")
        if job_id:
            check_name(job_id, "the ping's `job_id`")
        return cls(kind, key, job_id, job_key, count)
