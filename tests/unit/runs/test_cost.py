"""What a run costs: counted from its events, by prices that can be exchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from punchlib.errors import UsageError
from punchlib.runs import cost
from punchlib.runs.timeline import Moment

GB = 1 << 30
KEY = {"punch.key": "k", "punch.direction": "send"}
RUN = [
    Moment(0.0, "w", "run.node_started"),
    Moment(1.0, "w", "node.invoked", {"faas.max_memory": 2 * GB}),
    Moment(1.0, "e", "node.invoked"),
    Moment(2.0, "w", "connection.registered", KEY),
    Moment(5.5, "w", "connection.peer_seen", KEY),
    Moment(6.0, "w", "connection.connected", KEY | {"punch.route": "punched"}),
    Moment(7.0, "w", "stream.last_byte", KEY | {"punch.bytes": 3 * GB}),
    Moment(8.0, "w", "upload.ended", {"punch.bytes": 17 << 20}),
    Moment(8.0, "w", "download.ended", {"punch.bytes": 17 << 20}),
    Moment(10.0, "w", "run.node_ended"),
]


def quantities(moments: list[Moment]) -> dict[str, float]:
    found = cost.estimate(moments, cost.load_prices())
    return {line.what: line.quantity for line in found.lines}


def test_what_is_counted() -> None:
    assert quantities(RUN) == {
        "Lambda": 20.0,
        "Lambda requests": 1,
        "S3 writes": 1 + 3 + 2 + 3,
        "S3 reads": 1 + 3 + 1,
        "DynamoDB writes": 2,
        "DynamoDB reads": 1 + 1 + 3,
        "transfer": 3.0,
        "transfer out": 0.0,
    }


def test_a_result_leaves_aws() -> None:
    """What the runner receives crosses the internet."""
    receiver = {"punch.key": "k", "punch.direction": "recv", "punch.route": "punched"}
    here = [
        Moment(0.0, "result", "run.node_started", {"punch.place": "here"}),
        Moment(6.0, "result", "connection.connected", receiver),
    ]
    found = quantities([*here, *RUN])
    assert (found["transfer"], found["transfer out"]) == (0.0, 3.0)


def test_over_s3_nothing_is_transferred() -> None:
    moments = [
        Moment(m.at, m.node, m.event, {**m.attributes, "punch.route": "s3"})
        if m.event == "connection.connected"
        else m
        for m in RUN
    ]
    assert quantities(moments)["transfer"] == 0
    assert quantities(moments)["S3 writes"] == 9 + 2 + 384


def test_the_sum_and_the_detour() -> None:
    prices = dict.fromkeys(cost.load_prices(), 0.0) | {"as_of": "2026-01-01", "transfer_gb": 0.5}
    found = cost.estimate(RUN, prices)
    assert found.total == 1.5
    assert found.to_json()["total"] == 1.5
    assert (
        "about $1.50 on AWS, prices of 2026-01-01; most of it: transfer $1.50" in found.sentence()
    )
    prices |= {"s3_put": 0.25}
    assert cost.estimate(RUN, prices).detour == 384 * 0.25


def test_nothing_happened() -> None:
    found = cost.estimate([], cost.load_prices())
    assert found.total == pytest.approx(found.lines[2].price), "one sign of life"
    assert found.detour == 0


def test_other_prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.toml"
    monkeypatch.setenv(cost.PRICES, str(file))
    file.write_text("transfer_gb = 1\n")
    prices = cost.load_prices()
    assert prices["transfer_gb"] == 1
    assert prices["s3_put"] > 0


@pytest.mark.parametrize(
    "text", ["transfer = 1", "transfer_gb = -1", 'transfer_gb = "x"', "transfer_gb = true", "="]
)
def test_what_is_no_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    file = tmp_path / "mine.toml"
    monkeypatch.setenv(cost.PRICES, str(file))
    file.write_text(text)
    with pytest.raises(UsageError, match=r"mine\.toml"):
        cost.load_prices()


@pytest.mark.parametrize(
    ("dollars", "text"),
    [
        *((1234.5, "$1,234.50"), (0.00123, "$0.0012"), (0.0, "$0"), (0.05, "$0.05")),
        (0.0000133334, "$0.000013"),
    ],
)
def test_money(dollars: float, text: str) -> None:
    assert cost.money(dollars) == text
