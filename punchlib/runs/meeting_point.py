"""What the rendezvous table says of a key, in words: who is there, what each end waits for.

Keys are not signed here: whoever looks has no run's key. So what is said is what stands there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from punchlib.core import records
from punchlib.core.records import Filtering, Nat, Record, RecordError, Withdrawal
from punchlib.core.records import Mapping as NatMapping
from punchlib.errors import PunchError, escape

#: Seconds after which an end that has registered and met nobody has most likely given up: the
#: time-out that nodes have where nobody says otherwise (PUNCH_TIMEOUT).
OLD = 300.0

_MAPPINGS = {
    NatMapping.NONE: "no NAT",
    NatMapping.INDEPENDENT: "a NAT that keeps one address for a port",
    NatMapping.DEPENDENT: "a NAT that gives each destination its own port",
    NatMapping.UNKNOWN: "a NAT that is not known",
}
_FILTERINGS = {
    Filtering.INDEPENDENT: "lets anybody in",
    Filtering.DEPENDENT: "lets in only whom it has sent to",
    Filtering.UNKNOWN: "may let in nobody",
}
#: The issues that the set-up guide names, and what each looks like from here.
_ABSENT = (
    "its script has not started: a cold start, or Lambda throttles (punch doctor, punch logs)",
    "its script was not found in S3 (punch logs says so)",
    "it waits before pashlib, for a FIFO that nobody opens (punch inspect RUN)",
    "it has another key or scope: PASH_JOB_ID must be the same at both ends",
)


def explain(key: str, item: Mapping[str, Any], now: float | None = None) -> list[str]:
    """What an item of the table says.

    Args:
        key: its hash key, the job's scope in front.
        item: as DynamoDB gives it; empty where there is none.
        now: seconds since 1970, by our clock.

    Returns:
        Lines for people, safe to print.
    """
    now = time.time() if now is None else now
    ends = {
        name.removeprefix("N_"): str(value.get("S", ""))
        for name, value in item.items()
        if name.startswith("N_")
    }
    shown = escape(key)
    if not ends:
        return [
            f"{shown}: nobody is registered: neither end has come, or both have met and gone",
            *(f"  perhaps {why}" for why in _ABSENT),
        ]
    read = {label: _read(text) for label, text in ends.items()}
    lines = [f"{shown}: {len(ends)} ends have written here"]
    for label, record in read.items():
        lines += [f"  {escape(label)}: {line}" for line in _end(record, now)]
    lines += [f"  {line}" for line in _together(read, now)]
    return lines


def _read(text: str) -> Record | Withdrawal | str:
    """What stands there, or why it cannot be read."""
    try:
        return records.parse(text)
    except RecordError as error:
        return f"what stands there is no record ({error})"
    except PunchError as error:
        return error.message


def _end(record: Record | Withdrawal | str, now: float) -> list[str]:
    match record:
        case str():
            return [escape(record)]
        case Withdrawal():
            who = f" (first said by {record.cause.origin})" if record.cause.origin else ""
            return [escape(f"gave up with status {record.exit_code}: {record.cause.reason}{who}")]
    if record.is_v1:
        return [f"an old (v1) peer at {record.external_addr}; it dials once, and waits"]
    age = now - record.ts / 1000
    said = f"registered {_ago(age)} for its attempt {record.attempt}, at {record.external_addr}"
    lines = [said + (", which may be stale" if age > OLD else "")]
    candidates = ", ".join(f"{c.type} {c.address}" for c in record.candidates) or "none"
    lines.append(f"candidates: {candidates}; {_nat(record.nat)}")
    return lines


def _together(read: Mapping[str, Record | Withdrawal | str], now: float) -> list[str]:
    """What the ends are waiting for, and what has probably gone wrong."""
    present = {label: r for label, r in read.items() if isinstance(r, Record)}
    if len(read) == 1 and present:
        [label] = present
        return [f"{escape(label)} waits for its peer, which has not come (peer not found):"] + [
            f"  perhaps {why}" for why in _ABSENT
        ]
    if len(present) < 2:
        return []
    first, second = list(present.values())[:2]
    if first.is_v1 or second.is_v1:
        return ["one end is old: nothing is authenticated, and a dead peer looks like an end"]
    out = []
    if first.attempt != second.attempt:
        out.append("one end is an attempt ahead: the other registers again in a moment")
    if _old(first, now) != _old(second, now):
        out.append("one record is of an earlier run: its end will not come any more")
    if why := _impossible(first.nat, second.nat):
        out.append(why)
    elif not out:
        out.append("both are there: they are connecting; if that lasts, packets are dropped on")
        out.append("the way (a security group, a firewall: connection timed out), and S3 is next")
    return out


def _old(record: Record, now: float) -> bool:
    return now - record.ts / 1000 > OLD


def _impossible(one: Nat, other: Nat) -> str:
    """Why a direct connection cannot be; "" when it can."""
    for this, that in ((one, other), (other, one)):
        if this.mapping is NatMapping.DEPENDENT and that.filtering is Filtering.DEPENDENT:
            return (
                "one end's NAT gives each destination its own port, and the other's lets in only"
                " whom it has sent to: no direct connection can be, the S3 route is used"
            )
    return ""


def _nat(nat: Nat) -> str:
    if nat.mapping is NatMapping.NONE:
        return _MAPPINGS[nat.mapping]
    return f"{_MAPPINGS[nat.mapping]} and {_FILTERINGS[nat.filtering]}"


def _ago(seconds: float) -> str:
    if seconds < 0:
        return f"{-seconds:.0f} s in the future by our clock"
    return f"{seconds:.0f} s ago"
