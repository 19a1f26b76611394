"""Two ends of a ping on this machine: direct, over S3, with nobody there, with a stranger."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from punchlib.config import Config, Route
from punchlib.core.frames import FrameType
from punchlib.doctor import ping
from punchlib.doctor.ping import Attempt, Pinger
from punchlib.errors import StreamBroken
from punchlib.net.channel import Frame
from punchlib.rendezvous.memory import MemoryStore
from tests.support.ministack import MiniStack, free_port

Wants = Callable[[int, str], bool]
PHASES = ["stun", "register", "peer", "connect"]


def config(**changes: Any) -> Config:
    """No STUN: both are on one machine, and its own address is enough."""
    dead = (("127.0.0.1", free_port()),)
    return replace(Config(stun_servers=dead, stun_timeout=0.3), **changes)


def both(
    first: Wants,
    second: Wants = lambda number, route: True,
    ours: Config | None = None,
    theirs: Config | None = None,
) -> tuple[list[Attempt], list[Attempt]]:
    async def main() -> tuple[list[Attempt], list[Attempt]]:
        store = MemoryStore()
        one = Pinger("k", True, ours or config(), first, store=store)
        other = Pinger("k", False, theirs or ours or config(), second, store=store)
        return await asyncio.gather(one.run(), other.run())

    return asyncio.run(main())


def up_to(most: int) -> Wants:
    return lambda number, route: number < most


def test_a_direct_one() -> None:
    (here,), (there,) = both(up_to(1))
    assert here.direct and there.direct
    assert (here.local, here.remote) == (there.remote, there.local)
    assert list(here.phases) == list(there.phases) == PHASES
    assert all(ms >= 0 for ms in here.phases.values())
    assert 0 < here.rtt_ms <= here.rtt_median_ms < 5000
    assert here.bytes_per_s > 0
    # The other end is told what this one measured.
    assert here.bytes_per_s == there.bytes_per_s
    assert Attempt(**json.loads(json.dumps(here.to_json()))) == here


@pytest.mark.parametrize(("ours", "theirs", "many"), [(3, 9, 3), (9, 2, 2)])
def test_they_go_on_while_both_want_to(ours: int, theirs: int, many: int) -> None:
    here, there = both(up_to(ours), up_to(theirs))
    assert [a.number for a in here] == [a.number for a in there] == list(range(1, many + 1))


def test_until_one_is_direct() -> None:
    here, _ = both(lambda number, route: route not in (Route.HOST, Route.PUNCHED))
    assert len(here) == 1


def test_over_s3(ministack: MiniStack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ministack.env.items():
        monkeypatch.setenv(name, value)
    bucket = f"b{uuid.uuid4().hex[:8]}"
    ministack.client("s3").create_bucket(Bucket=bucket)
    env = Config.from_env()
    only_s3 = config(
        bucket=bucket, routes=(Route.S3,), endpoint_url=env.endpoint_url, region=env.region
    )
    here, there = both(up_to(2), ours=only_s3)
    assert [a.route for a in (*here, *there)] == ["s3"] * 4
    assert not here[0].direct
    assert here[0].rtt_ms > 0 and here[0].bytes_per_s > 0
    assert here[0].local == "-"
    assert ministack.client("s3").list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_no_route_is_tried_as_often_as_was_asked() -> None:
    """Nothing but punching, and no STUN: each attempt says why, and has its next step."""
    here, there = both(up_to(2), up_to(2), ours=config(routes=(Route.PUNCHED,)))
    assert [a.route for a in (*here, *there)] == [""] * 4
    assert all(a.error for a in (*here, *there))
    assert not any(a.rtt_ms or a.bytes_per_s for a in here)


def test_nobody_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ping, "ATTEMPT", 1.5)

    async def main() -> list[Attempt]:
        return await Pinger("k", True, config(), up_to(5), store=MemoryStore()).run()

    (only,) = asyncio.run(main())
    assert "did not come" in only.error
    assert list(only.phases) == ["stun", "register"]


def test_a_stranger_with_another_job_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ping, "ATTEMPT", 3.0)
    here, there = both(up_to(1), ours=config(job_key=b"a" * 32), theirs=config(job_key=b"b" * 32))
    assert "not signed with this run's job key" in here[0].error + there[0].error
    assert not here[0].route and not there[0].route


class Said:
    """A channel on which the other end says what we like."""

    def __init__(self, *frames: tuple[FrameType, bytes]) -> None:
        self._frames = list(frames)

    async def send(self, kind: FrameType, payload: bytes = b"") -> None:
        return None

    async def receive(self) -> Frame:
        return Frame(*self._frames.pop(0))


@pytest.mark.parametrize(
    "frames",
    [
        [(FrameType.DATA, b"x")],
        [(FrameType.END, b"\0" * 8)],
        [(FrameType.PING, b""), (FrameType.DATA, b"m1")],
        [*[(FrameType.DATA, b"e")] * ping.ECHOES, (FrameType.DATA, b"s123")],
        [*[(FrameType.DATA, b"e")] * ping.ECHOES, (FrameType.DATA, b"s" + b"\0" * 8)],
    ],
)
def test_what_is_no_answer(frames: list[tuple[FrameType, bytes]]) -> None:
    with pytest.raises(StreamBroken):
        asyncio.run(ping._measure(Said(*frames), True))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff", b'{"rtt_ms": "x"}', b"[" * 5000])
def test_what_is_no_measurement(text: bytes) -> None:
    with pytest.raises(StreamBroken, match="cannot be read"):
        asyncio.run(ping._answer(Said((FrameType.DATA, b"r" + text)), True))  # type: ignore[arg-type]
