"""The two ends of a ping: real connections, established as streams' are, and measured.

What an attempt measures, all on the one verified connection that came about, TLS included:

- the time of each phase: STUN told our address; our record was in the store; the peer's was there
  (its cold start, or the person who starts it, is in this one); the connection was nominated;
- the round trip: the least and the median of up to ten, of a frame of one byte and its echo, from
  our process to the other's and back (over S3 that is two objects and the looks for them);
- the throughput from the first end to the second: ever more bytes, from 64 KiB on, until a batch
  takes half a second or has 64 MiB. Bytes of the last batch over the time until the other end had
  said that they came, less one round trip.

The frames are DATA frames (docs/wire.md) and their first byte is ours:

    e           echo this
    f …         payload, to be counted
    s           how many bytes of it were there? The answer: s and the number, 8 bytes
    r {…}       what the first end measured, and whether it wants another connection
    m 0|1       the second end's answer: whether it does; then both hang up
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import statistics
import struct
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from punchlib import wiring
from punchlib.config import Config, Route, Wire
from punchlib.core.events import Connected, Event, PeerSeen, Registered, Spec, StunAnswered
from punchlib.core.frames import FrameType
from punchlib.errors import NoRoute, PunchError, StreamBroken
from punchlib.net.channel import Buffer, Channel
from punchlib.rendezvous.store import RendezvousStore

#: Seconds for a connection to come about; a cold worker registers within ten.
ATTEMPT = 60.0
#: Seconds for all that is measured, and to hang up in order.
TALK, GOODBYE = 60.0, 3.0
#: Round trips, and the seconds after which no other begins.
ECHOES, ECHO_TIME = 10, 1.5
#: Bytes of the first and the largest batch; seconds after which a batch is long enough.
FIRST_BATCH, LARGEST_BATCH, LONG_BATCH = 64 << 10, 64 << 20, 0.5
#: Seconds for all batches: over S3 a single one takes that long.
BATCHES = 3.0
FRAME = 256 << 10

_COUNT = struct.Struct("!cQ")


@dataclass(frozen=True)
class Attempt:
    """One connection, or why there was none. Times in milliseconds.

    Attributes:
        number: from 1.
        route: host, punched or s3; "" where there was none.
        how: how it was made, in words.
        local, remote: its ends as this machine sees them; "-" over S3.
        phases: stun, register, peer, connect: how long each took.
        rtt_ms, rtt_median_ms: 0.0 where there was none.
        bytes_per_s: from the first end to the second; 0.0 where there was none.
        error: why there was no connection, or it broke; "" where all went well.
        next_step: what to do about that.
    """

    number: int
    route: str = ""
    how: str = ""
    local: str = "-"
    remote: str = "-"
    phases: dict[str, float] = field(default_factory=dict)
    rtt_ms: float = 0.0
    rtt_median_ms: float = 0.0
    bytes_per_s: float = 0.0
    error: str = ""
    next_step: str = ""

    @property
    def direct(self) -> bool:
        return self.route in (Route.HOST, Route.PUNCHED)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class _Phases:
    """Takes the times of what is reported of a connection on its way."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last = now()
        self.ms: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case StunAnswered():
                self._ends("stun")
            case Registered():
                self._ends("register")
            case PeerSeen():
                self._ends("peer")
            case Connected():
                self._ends("connect")

    def _ends(self, phase: str) -> None:
        # The first of each: what is begun anew on the way is a part of `connect`.
        if phase not in self.ms:
            now = self._now()
            self.ms[phase], self._last = (now - self._last) * 1000, now


@dataclass(frozen=True)
class _Measured:
    """What the first end has found, and what the ends want."""

    rtt_ms: float
    rtt_median_ms: float
    bytes_per_s: float
    more: bool


class Pinger:
    """One of the two ends, and its attempts.

    Args:
        key: of the connections, which no other pair has.
        first: measures, and tells the other.
        config: as for a stream; its time-out is the attempts'.
        wants: whether this end would like another one after the attempt of this number, by this
            route ("" where it failed).
        tell: hears of each attempt when it is over.
        store: the rendezvous; DynamoDB by default.
    """

    def __init__(
        self,
        key: str,
        first: bool,
        config: Config,
        wants: Callable[[int, str], bool],
        tell: Callable[[Attempt], None] = lambda attempt: None,
        store: RendezvousStore | None = None,
    ) -> None:
        self._key, self._first = key, first
        self._config = replace(config, wire=Wire.V2, timeout=ATTEMPT)
        self._wants, self._tell, self._store = wants, tell, store

    async def run(self) -> list[Attempt]:
        """Connects, measures, and again, while both ends want to.

        An attempt that fails is no error here; one whose peer never came is the last.
        """
        # What is imported once is no phase of a connection.
        await asyncio.get_running_loop().run_in_executor(None, wiring.warm_up)
        attempts = []
        for number in itertools.count(1):
            attempt, go_on = await self._attempt(number)
            attempts.append(attempt)
            self._tell(attempt)
            if not go_on:
                return attempts
        raise AssertionError

    async def _attempt(self, number: int) -> tuple[Attempt, bool]:
        loop = asyncio.get_running_loop()
        phases = _Phases(loop.time)
        attempt = Attempt(number, phases=phases.ms)
        me, peer = ("0", "1") if self._first else ("1", "0")
        spec = Spec(f"{self._key}/{number}", me, peer, sending=self._first)
        connector = wiring.open_connector(self._config, store=self._store, report=phases)
        try:
            async with await connector.establish(spec) as connection:
                assert connection.channel is not None
                attempt = replace(
                    attempt,
                    route=str(connection.route),
                    how=connection.technique,
                    local=connection.local,
                    remote=connection.remote,
                )
                wants = self._wants(number, attempt.route)
                talk: Callable[[Channel, bool], Awaitable[_Measured]]
                talk = _measure if self._first else _answer
                async with asyncio.timeout(TALK):
                    found = await talk(connection.channel, wants)
                with contextlib.suppress(PunchError, TimeoutError):
                    async with asyncio.timeout(GOODBYE):
                        await connection.channel.finish()
        except (PunchError, TimeoutError) as error:
            ours = error if isinstance(error, PunchError) else _too_slow()
            # Both ends know of these, and neither knows what the other wants.
            go_on = isinstance(ours, NoRoute | StreamBroken) and self._wants(number, "")
            return replace(attempt, error=ours.message, next_step=ours.next_step), go_on
        finally:
            await connector.close()
        facts = {k: v for k, v in asdict(found).items() if k != "more"}
        return replace(attempt, **facts), wants and found.more


def _too_slow() -> PunchError:
    return StreamBroken(
        f"the connection stood, and what was to be measured took more than {TALK:.0f} s",
        next_step="try again on a quieter machine or network",
    )


async def answer(
    key: str, config: Config, count: int, store: RendezvousStore | None = None
) -> list[Attempt]:
    """The second end, for as long as the first wants to, at most `count` times."""
    return await Pinger(key, False, config, lambda n, _: n < count, store=store).run()


async def _measure(channel: Channel, wants: bool) -> _Measured:
    loop = asyncio.get_running_loop()
    trips: list[float] = []
    enough = loop.time() + ECHO_TIME
    while len(trips) < ECHOES and (not trips or loop.time() < enough):
        started = loop.time()
        await channel.send(FrameType.DATA, b"e")
        await _hear(channel, b"e")
        trips.append(loop.time() - started)
    rate = await _throughput(channel, min(trips))
    found = _Measured(min(trips) * 1000, statistics.median(trips) * 1000, rate, wants)
    await channel.send(FrameType.DATA, b"r" + json.dumps(asdict(found)).encode())
    return replace(found, more=(await _hear(channel, b"m"))[1:] == b"1")


async def _throughput(channel: Channel, round_trip: float) -> float:
    loop = asyncio.get_running_loop()
    filling = b"f" + bytes(FRAME)
    size, enough = FIRST_BATCH, loop.time() + BATCHES
    while True:
        started = loop.time()
        for at in range(0, size, FRAME):
            await channel.send(FrameType.DATA, memoryview(filling)[: min(FRAME, size - at) + 1])
        await channel.send(FrameType.DATA, b"s")
        said = await _hear(channel, b"s")
        took = loop.time() - started
        if len(said) != _COUNT.size or _COUNT.unpack(said)[1] != size:
            raise StreamBroken(f"{size} bytes were sent, and the other end did not get so many")
        if took >= LONG_BATCH or size >= LARGEST_BATCH or loop.time() > enough:
            return size / max(took - round_trip, took / 2)
        size *= 2


async def _answer(channel: Channel, wants: bool) -> _Measured:
    count = 0
    while True:
        payload = await _hear(channel, b"efsr")
        match bytes(payload[:1]):
            case b"e":
                await channel.send(FrameType.DATA, b"e")
            case b"f":
                count += len(payload) - 1
            case b"s":
                await channel.send(FrameType.DATA, _COUNT.pack(b"s", count))
                count = 0
            case _:
                found = _read(bytes(payload[1:]))
                await channel.send(FrameType.DATA, b"m1" if wants else b"m0")
                await channel.flush()
                return found


def _read(text: bytes) -> _Measured:
    try:
        said = json.loads(text)
        least, median, rate = (
            float(said[name]) for name in ("rtt_ms", "rtt_median_ms", "bytes_per_s")
        )
        return _Measured(least, median, rate, said["more"] is True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StreamBroken("what the other end measured cannot be read") from error


async def _hear(channel: Channel, kinds: bytes) -> Buffer:
    """The next frame of the ping; one of these kinds."""
    while True:
        frame = await channel.receive()
        if frame.type is FrameType.PING:
            continue  # a sign of life
        if frame.type is not FrameType.DATA or bytes(frame.payload[:1]) not in _each(kinds):
            raise StreamBroken(
                f"expected a frame of a ping, got {frame.type.name}",
                next_step="run the same release of punch at both ends",
            )
        return frame.payload


def _each(kinds: bytes) -> set[bytes]:
    return {bytes([kind]) for kind in kinds}
