"""What a run costs on AWS, from its events and a dated table of list prices (prices.toml).

An estimate: free tiers, discounts, the EC2 machine, logs and images are left out, and where the
events do not say how often something was asked, what it usually takes is counted.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from punchlib.errors import UsageError
from punchlib.names import shown
from punchlib.runs.timeline import Moment

#: Names a file with other prices.
PRICES = "PUNCH_PRICES"
#: Bytes of an object of the detour, in which each stream is put into S3 and got from there.
DETOUR_OBJECT = 8 << 20
#: Seconds between two looks of a node, and two signs of life of the runner, in the bucket.
_LOOK, _LEASE = 3.0, 5.0
_GB = 1 << 30
#: What costs -> its unit, and its price in the table.
_KINDS = {
    "Lambda": ("GB-s", "lambda_gb_second"),
    "Lambda requests": ("requests", "lambda_request"),
    "S3 writes": ("requests", "s3_put"),
    "S3 reads": ("requests", "s3_get"),
    "DynamoDB writes": ("requests", "dynamodb_write"),
    "DynamoDB reads": ("requests", "dynamodb_read"),
    "transfer": ("GB", "transfer_gb"),
    "transfer out": ("GB", "transfer_out_gb"),
}


@dataclass(frozen=True)
class Line:
    """One kind of thing that costs.

    Attributes:
        what: for people.
        quantity: how much of it, in `unit`.
        price: of one, in dollars.
    """

    what: str
    quantity: float
    unit: str
    price: float

    @property
    def dollars(self) -> float:
        return self.quantity * self.price


@dataclass(frozen=True)
class Cost:
    """What a run costs.

    Attributes:
        lines: what makes it up.
        detour: dollars for the requests that all streams would cost as objects in S3.
        as_of: the date of the prices.
    """

    lines: tuple[Line, ...]
    detour: float
    as_of: str

    @property
    def total(self) -> float:
        """In dollars."""
        return sum(line.dollars for line in self.lines)

    def to_json(self) -> dict[str, Any]:
        lines = [{**vars(line), "dollars": line.dollars} for line in self.lines]
        return {
            "total": self.total,
            "lines": lines,
            "detour": self.detour,
            "prices_of": self.as_of,
        }

    def sentence(self) -> str:
        """One line for people."""
        most = max(self.lines, key=lambda line: line.dollars)
        text = f"about {money(self.total)} on AWS, prices of {self.as_of}"
        if most.dollars:
            text += f"; most of it: {most.what} {money(most.dollars)}"
        return f"{text}; all streams over S3 would add {money(self.detour)} of requests"


def money(dollars: float) -> str:
    """Dollars with the digits that say something."""
    if dollars >= 0.01:
        return f"${dollars:,.2f}"
    if dollars < 1e-9:
        return "$0"
    return f"${dollars:.{1 - math.floor(math.log10(dollars))}f}"


def load_prices() -> dict[str, Any]:
    """The prices: ours, and over them those of the file that PUNCH_PRICES names.

    Raises:
        UsageError: it cannot be read, or names a price that we do not know.
    """
    text = resources.files("punchlib.runs").joinpath("prices.toml").read_text(encoding="utf-8")
    prices = tomllib.loads(text)
    file = os.environ.get(PRICES, "")
    if not file:
        return prices
    try:
        given = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{PRICES}: {shown(file)} cannot be read: {error}") from None
    for name, value in given.items():
        if name not in prices or isinstance(value, bool) or not _fits(value, prices[name]):
            raise UsageError(
                f"{PRICES}: {shown(file)}: {name} = {value!r} is no price that we know",
                next_step=f"known are {', '.join(prices)}",
            )
    return prices | given


def priced(quantities: Mapping[str, float], prices: Mapping[str, Any]) -> tuple[Line, ...]:
    """What so much costs.

    Args:
        quantities: by the names of `_KINDS`.
        prices: `load_prices`.
    """
    return tuple(
        Line(what, quantity, _KINDS[what][0], prices[_KINDS[what][1]])
        for what, quantity in quantities.items()
    )


def estimate(moments: Iterable[Moment], prices: Mapping[str, Any]) -> Cost:
    """What the run of these events costs."""
    use = _Use()
    for moment in moments:
        use.take(moment)
    lines = priced(
        {
            "Lambda": use.gb_seconds(),
            "Lambda requests": len(use.memory),
            "S3 writes": use.puts(),
            "S3 reads": use.gets(),
            "DynamoDB writes": use.writes,
            "DynamoDB reads": use.reads,
            "transfer": use.direct_bytes(out=False) / _GB,
            "transfer out": use.direct_bytes(out=True) / _GB,
        },
        prices,
    )
    objects = sum(max(1, math.ceil(size / DETOUR_OBJECT)) for size in use.sent.values())
    detour = objects * (prices["s3_put"] + prices["s3_get"])
    return Cost(lines, detour, str(prices["as_of"]))


class _Use:
    """What was used, counted event by event."""

    def __init__(self) -> None:
        self.memory: dict[str, float] = {}
        self.sent: dict[str, float] = {}
        self.writes = 0
        self.reads = 0
        self._began: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._routes: dict[str, str] = {}
        self._outside: set[str] = set()
        self._out: set[str] = set()
        self._registered: dict[tuple[str, str], float] = {}
        self._puts = 0
        self._gets = 0

    def take(self, moment: Moment) -> None:
        key, node = moment.text("punch.key"), moment.node
        match moment.event:
            case "run.node_started":
                self._began[node] = moment.at
                if moment.text("punch.place") == "here":
                    self._outside.add(node)
            case "run.node_ended" | "run.node_failed":
                self._ended[node] = moment.at
            case "node.invoked" if moment.number("faas.max_memory"):
                self.memory[node] = moment.number("faas.max_memory")
            case "connection.registered":
                self.writes += 2  # and once more to take it back
                self.reads += 1
                self._registered[node, key] = moment.at
            case "connection.peer_seen":
                waited = moment.at - self._registered.get((node, key), moment.at)
                self.reads += 1 + int(waited)
            case "connection.connected":
                self._routes[key] = moment.text("punch.route")
                if node in self._outside:
                    self._out.add(key)
            case "stream.last_byte" if moment.text("punch.direction") == "send":
                self.sent[key] = moment.number("punch.bytes")
            case "upload.ended":
                self._puts += 2 + max(1, math.ceil(moment.number("punch.bytes") / (8 << 20)))
            case "download.ended":
                self._gets += 1

    def gb_seconds(self) -> float:
        """Billed from the call to the result: the cold start is in it."""
        return sum(
            memory / _GB * max(0.0, self._ended.get(node, 0.0) - self._began.get(node, 0.0))
            for node, memory in self.memory.items()
        )

    def puts(self) -> int:
        """Scripts, signs of life, outputs, and streams that took the S3 route."""
        lease = int(self._lasted() / _LEASE) + 1
        return len(self._began) + lease + self._puts + self._spooled()

    def gets(self) -> int:
        looks = sum(int((self._ended.get(n, b) - b) / _LOOK) for n, b in self._began.items())
        return len(self._began) + looks + self._gets + self._spooled()

    def direct_bytes(self, *, out: bool) -> float:
        """Between nodes, or `out` of AWS to who runs the job."""
        direct = (key for key in self.sent if self._routes.get(key) != "s3")
        return sum(self.sent[key] for key in direct if (key in self._out) == out)

    def _spooled(self) -> int:
        sizes = (size for key, size in self.sent.items() if self._routes.get(key) == "s3")
        # An object each way at least: the last word, and its answer.
        return sum(2 + math.ceil(size / DETOUR_OBJECT) for size in sizes)

    def _lasted(self) -> float:
        return max(self._ended.values(), default=0.0) - min(self._began.values(), default=0.0)


def _fits(value: object, ours: object) -> bool:
    if isinstance(ours, float):
        return isinstance(value, int | float) and value >= 0
    return isinstance(value, type(ours))
