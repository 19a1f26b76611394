"""Establishing connections on loopback: real sockets, a real STUN server, every odd peer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from punchlib.config import Config, Route
from punchlib.core import records
from punchlib.core.records import Withdrawal
from punchlib.errors import (
    Cause,
    NoRoute,
    PeerNotVerified,
    PunchError,
    RendezvousError,
    RendezvousTimeout,
    StreamBroken,
    WireMismatch,
)
from punchlib.net.connection import Connection
from punchlib.rendezvous.memory import MemoryStore
from punchlib.rendezvous.store import Slot
from tests.loopback.net.conftest import RECV, SEND, World, assert_talk, pair, run


@pytest.mark.parametrize("security", ["encrypted", "authenticated"])
@pytest.mark.parametrize("first", ["sender", "receiver"])
@pytest.mark.parametrize("on_lambda", [False, True])
def test_both_orders(world: World, security: str, first: str, on_lambda: bool) -> None:
    async def main() -> None:
        a = world.connector(security=security, on_lambda=on_lambda)
        b = world.connector(security=security)
        order = [a.establish(SEND), b.establish(RECV)]
        if first == "receiver":
            order.reverse()
        one = asyncio.ensure_future(order[0])
        await asyncio.sleep(0.3)
        connections = await pair(one, order[1])
        sender, receiver = connections if first == "sender" else connections[::-1]
        assert sender.route is receiver.route is Route.HOST
        await assert_talk(sender, receiver)
        assert world.store.records == {}, "each side has taken its record back"

    run(world, main)


def test_the_stronger_security_wins(world: World) -> None:
    async def main() -> None:
        a = world.connector(security="authenticated")
        b = world.connector(security="encrypted")
        sender, receiver = await pair(a.establish(SEND), b.establish(RECV))
        assert "TLS" in str(type(sender.channel.sock)) or sender.channel.sock.version()  # type: ignore[union-attr]
        await assert_talk(sender, receiver)

    run(world, main)


def test_who_gives_up_tells_the_peer_that_it_has_met(world: World) -> None:
    """No direct route and no S3: one finds that out, and the other must not wait for it."""

    async def main() -> None:
        nowhere: dict[str, Any] = {"routes": (Route.S3,), "timeout": 60.0}
        a, b = world.connector(**nowhere), world.connector(**nowhere)
        started = time.monotonic()
        one = asyncio.ensure_future(a.establish(SEND))
        await asyncio.sleep(0.3)
        other = asyncio.ensure_future(b.establish(RECV))
        await asyncio.wait([one, other])
        assert time.monotonic() - started < 30.0  # not the time for a peer to register
        for failed in (one, other):
            assert isinstance(failed.exception(), NoRoute)
        assert any("the peer reports: " in str(end.exception()) for end in (one, other)) or (
            "no direct way" in str(one.exception()) and "no direct way" in str(other.exception())
        )

    run(world, main)


@pytest.mark.parametrize("code", [4, 5, 6])
def test_a_withdrawal_counts_only_for_whom_it_names(world: World, code: int) -> None:
    async def main() -> None:
        a = world.connector(timeout=60.0)
        left = Slot("k", "1")
        # What an earlier run left: it names a side of that run.
        world.store.records[left] = Withdrawal("00" * 8, code, Cause("long ago")).to_json()
        one = asyncio.ensure_future(a.establish(SEND))
        await asyncio.sleep(0.5)
        assert not one.done()
        side = json.loads(world.store.records[Slot("k", "0")])["side"]
        world.store.records[left] = Withdrawal(
            side, code, Cause("my disk is full", "worker1")
        ).to_json()
        with pytest.raises(PunchError, match="the peer reports: my disk is full") as caught:
            async with asyncio.timeout(5):
                await one
        assert caught.value.exit_code == code
        assert caught.value.cause == Cause("my disk is full", "worker1")
        assert Slot("k", "0") not in world.store.records

    run(world, main)


def test_a_stream_that_fails_tells_a_peer_that_has_not_connected(world: World) -> None:
    """It may still wait for the answer to its nomination, which was lost."""

    async def main() -> None:
        a, b = world.connector(), world.connector()
        sender, receiver = await pair(a.establish(SEND), b.establish(RECV))
        assert sender.channel is not None
        sender.channel.close()
        with pytest.raises(StreamBroken):
            async with receiver:
                raise StreamBroken("the connection broke")
        said = records.parse(world.store.records[Slot("k", "1")])
        assert isinstance(said, Withdrawal)
        assert (said.exit_code, said.cause) == (6, Cause("the connection broke"))
        sides = {json.loads(world.store.records[Slot("k", "0")])["side"]}
        assert said.met in sides
        await sender.forget()

    run(world, main)


def test_many_at_once_share_the_watcher(world: World) -> None:
    async def main() -> None:
        a, b = world.connector(timeout=60.0), world.connector(timeout=60.0)
        n = 32
        sends = [replace(SEND, key=f"k{i}") for i in range(n)]
        waiting = [asyncio.ensure_future(a.establish(s)) for s in sends]
        await asyncio.sleep(1.0)
        polls = world.store.calls["read"]
        assert polls < 60, "one batched read for all, not one each"
        others = [b.establish(replace(RECV, key=s.key)) for s in sends]
        receivers = await asyncio.gather(*others)
        senders = await asyncio.gather(*waiting)
        for sender, receiver in zip(senders, receivers, strict=True):
            await assert_talk(sender, receiver)

    run(world, main)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("{garbage \x1b[31m", RendezvousTimeout, "no record"),
        ('{"local_addr":"1.1.1.1:1","external_addr":"1.1.1.1:1","v":9}', WireMismatch, "version 9"),
    ],
)
def test_odd_records(world: World, text: str, error: type[Exception], words: str) -> None:
    async def main() -> None:
        world.store.records[Slot("k", "1")] = text
        with pytest.raises(error, match=words) as caught:
            await world.connector(timeout=0.5).establish(SEND)
        assert "\x1b" not in str(caught.value)

    run(world, main)


@pytest.mark.parametrize(
    "knob",
    [
        {"PUNCH_WIRE": "v2"},
        {"PUNCH_SECURITY": "encrypted"},
        {"PUNCH_SECURITY": "Encrypted", "PUNCH_WIRE": "auto"},
    ],
)
def test_an_old_peer_is_refused_by_the_knob_that_is_named(
    world: World, knob: dict[str, str]
) -> None:
    """Whoever may write the table could else get plaintext where encryption was asked for."""

    async def main() -> None:
        asked = Config.from_env(knob)
        text = '{"local_addr":"192.0.2.1:1","external_addr":"192.0.2.1:1"}'
        world.store.records[Slot("k", "1")] = text
        changes = {n: getattr(asked, n) for n in ("wire", "security", "security_is_set")}
        name, value = next(iter(knob.items()))
        with pytest.raises(PeerNotVerified, match=f"{name}={value.lower()}") as caught:
            await world.connector(**changes).establish(SEND)
        assert f"unset {name}" in caught.value.next_step

    run(world, main)


def test_two_runs_of_the_same_scripts_never_meet(world: World) -> None:
    async def main() -> None:
        jobs = [world.connector(job_id=j, job_key=j.encode()) for j in ("j1", "j1", "j2", "j2")]
        a, b, c, d = await asyncio.gather(
            *(c.establish(s) for c, s in zip(jobs, (SEND, RECV, SEND, RECV), strict=True))
        )
        await assert_talk(a, b)
        await assert_talk(c, d)

    run(world, main)


@pytest.mark.slow
def test_another_job_key_is_refused(world: World) -> None:
    async def main() -> None:
        a = world.connector(job_id="j", job_key=b"right")
        b = world.connector(job_id="j", job_key=b"wrong")
        results = await asyncio.gather(a.establish(SEND), b.establish(RECV), return_exceptions=True)
        assert any(isinstance(r, PeerNotVerified) for r in results)
        assert not any(isinstance(r, Connection) for r in results)

    run(world, main)


@pytest.mark.parametrize("says", [b"", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\x05hello"])
def test_strangers_do_not_disturb_the_wait(world: World, says: bytes) -> None:
    async def main() -> None:
        a, b = world.connector(), world.connector()
        waiting = asyncio.ensure_future(b.establish(RECV))
        strangers: list[socket.socket] = []
        heard = b""
        while Slot("k", "1") not in world.store.records:
            await asyncio.sleep(0.01)
        fields = json.loads(world.store.records[Slot("k", "1")])
        host = next(c["addr"] for c in fields["candidates"] if c["type"] == "host")
        address, _, port = host.rpartition(":")
        sending = asyncio.ensure_future(a.establish(SEND))
        for _ in range(20):
            stranger = socket.socket()
            stranger.setblocking(False)
            stranger.connect_ex((address, int(port)))
            strangers.append(stranger)
            await asyncio.sleep(0)
            with contextlib.suppress(OSError):
                stranger.send(says)
        sender, receiver = await pair(sending, waiting)
        for stranger in strangers:
            with contextlib.suppress(OSError):
                heard += stranger.recv(10000)
            stranger.close()
        assert b"hello" not in heard
        await assert_talk(sender, receiver)

    run(world, main)


def test_without_stun_and_s3_there_is_no_route(world: World) -> None:
    async def main() -> None:
        dead: dict[str, Any] = {
            "stun_servers": (("127.0.0.1", 1),),
            "stun_timeout": 1.0,
            "on_lambda": True,
        }
        a = world.connector(routes=("host", "punched"), **dead)
        b = world.connector(routes=("host", "punched"), **dead)
        results = await asyncio.gather(a.establish(SEND), b.establish(RECV), return_exceptions=True)
        errors = [r for r in results if isinstance(r, NoRoute)]
        # Which of the two gives up first, and is told to the other, is not said.
        assert any("127.0.0.1:1 over TCP" in str(error) for error in errors), errors

    run(world, main)


def test_the_store_that_fails_is_named(world: World) -> None:
    class Broken(MemoryStore):
        async def register(self, *_: object, **__: object) -> Any:
            raise RendezvousError("rendezvous: DynamoDB refused", next_step="renew")

    async def main() -> None:
        world.store = Broken()
        with pytest.raises(RendezvousError, match="refused"):
            await world.connector().establish(SEND)

    run(world, main)


def test_the_lines_that_people_grep_for(world: World, tmp_path: Path) -> None:
    async def main() -> None:
        a, b = world.connector(), world.connector()
        await assert_talk(*await pair(a.establish(SEND), b.establish(RECV)))
        assert sum(line.startswith("Get local_addr: 127.0.0.1:") for line in world.lines) == 2
        assert sum(line.startswith("connecting from 127.0.0.1:") for line in world.lines) == 2

    run(world, main)
