"""The way is cut at the very last words: each end's status says what that end knows.

A receiver that has said ACK has the right bytes; a sender that has the ACK knows that. So DONE
changes nothing, and a lost ACK fails the sender alone. On TCP, and over S3.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from punchlib.config import Config
from punchlib.core.handshake import CONFIRMATION_SIZE, GREETING_SIZE
from punchlib.core.timing import Timing
from punchlib.errors import PunchError, StorageError, StreamBroken
from punchlib.net.s3_route import PREFIX, S3Route
from punchlib.pump.stream import Stats, receive_stream, send_stream
from tests.support.fault_proxy import Fault, FaultProxy, Kind
from tests.support.ministack import MiniStack
from tests.support.stream_rig import (
    DEADLINE,
    FAST,
    Listener,
    Outcome,
    Rig,
    both,
    dial,
    digest,
    outcome,
    payload,
    run,
    stream,
    terms_pair,
)

UNKNOWING = "everything came, but the sender may not know it: "
CUTS = pytest.mark.parametrize("kind", [Kind.KILL, Kind.RESET, Kind.BLACKHOLE, Kind.TRUNCATE])
SIZE = pytest.mark.parametrize("size", [0, 5000])


def over_tcp(rig: Rig, fault: Fault) -> tuple[Outcome, Outcome, bool]:
    """Both ends' outcomes, and whether the fault struck."""

    async def work() -> tuple[Outcome, Outcome, bool]:
        sending, receiving = terms_pair()
        listener = Listener(receiving)
        async with FaultProxy(listener.address, fault).running() as proxy:
            ends = await both(dial(proxy.address, sending), listener.nominate())
            return *await stream(rig, *ends), proxy.struck

    return run(work)


@CUTS
@SIZE
def test_without_done_both_succeed(tmp_path: Path, kind: Kind, size: int) -> None:
    """DONE has four bytes: none of them arrives, or only some."""
    rig = Rig(tmp_path, payload(size))
    end = GREETING_SIZE + CONFIRMATION_SIZE + size + 4 * bool(size) + 12
    with rig.stages():
        sent, received, struck = over_tcp(rig, Fault(kind, end + bool(size)))
    assert struck
    assert isinstance(sent, Stats), sent
    assert isinstance(received, Stats), received
    assert received.note.startswith(UNKNOWING)
    assert (sent.note, digest(rig.got)) == ("", digest(rig.data))


@CUTS
@SIZE
def test_without_the_ack_the_sender_fails_alone(tmp_path: Path, kind: Kind, size: int) -> None:
    rig = Rig(tmp_path, payload(size))
    with rig.stages():
        sent, received, struck = over_tcp(rig, Fault(kind, GREETING_SIZE + 5, forward=False))
    assert struck
    assert isinstance(sent, StreamBroken), sent
    assert isinstance(received, Stats), received
    assert received.note.startswith(UNKNOWING)
    assert digest(rig.got) == digest(rig.data)


@CUTS
def test_without_end_both_fail(tmp_path: Path, kind: Kind) -> None:
    rig = Rig(tmp_path, payload(5000))
    end = GREETING_SIZE + CONFIRMATION_SIZE + 5004
    with rig.stages():
        sent, received, struck = over_tcp(rig, Fault(kind, end + 11))
    assert struck
    assert isinstance(sent, StreamBroken), sent
    assert isinstance(received, StreamBroken), received


# Over S3

BUCKET = "last-words"
#: S3's looks are not scaled: they cost calls. The silence must be longer than they take together.
TIMING = dataclasses.replace(
    FAST, object_look_least=0.02, object_look_most=0.1, object_retry=0.5, linger=3.0
)


class Cut:
    """An S3 client whose way to S3 is gone for what a test says."""

    def __init__(self, client: Any, gone: Callable[[str, dict[str, Any]], bool]) -> None:
        self._client = client
        self._gone = gone

    def __getattr__(self, name: str) -> Any:
        def call(**request: Any) -> Any:
            if self._gone(name, request):
                raise EndpointConnectionError(endpoint_url="http://s3")
            return getattr(self._client, name)(**request)

        return call


@pytest.fixture
def bucket(ministack: MiniStack) -> Any:
    client = ministack.client("s3")
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=BUCKET)
    return client


def route(client: Any, timing: Timing, silence: float) -> S3Route:
    config = Config(bucket=BUCKET, stall_timeout=silence)
    return S3Route(config, lambda: client, timing=timing)


def over_s3(
    rig: Rig, sender: Any, receiver: Any, *, silence: float = 6.0, timing: Timing = TIMING
) -> tuple[Outcome, Outcome]:
    """Both ends' outcomes, each with its own client."""

    async def work() -> tuple[Outcome, Outcome]:
        sending, receiving = terms_pair(key=rig.sink)
        here, there = await both(
            route(sender, timing, silence).open(sending),
            route(receiver, timing, silence).open(receiving),
        )
        patient = timing.patient(silence)

        async def send() -> Stats:
            with contextlib.closing(rig.reader()) as fifo:
                return await send_stream(here, fifo, timing=patient)

        async def receive() -> Stats:
            with contextlib.closing(rig.writer()) as fifo:
                return await receive_stream(there, fifo, timing=patient)

        async with asyncio.timeout(DEADLINE + 30):
            return await both(outcome(send()), outcome(receive()))

    return run(work)


def puts(side: str, numbers: Callable[[int], bool]) -> Callable[[str, dict[str, Any]], bool]:
    """Objects of one side that cannot be written."""

    def gone(operation: str, request: dict[str, Any]) -> bool:
        folder, _, number = request.get("Key", "").rpartition("/")
        return operation == "put_object" and folder[-2:] == f"/{side}" and numbers(int(number))

    return gone


@SIZE
def test_over_s3_without_done_both_succeed(tmp_path: Path, bucket: Any, size: int) -> None:
    rig = Rig(tmp_path, payload(size))
    with rig.stages():
        # The stream's last object has DONE alone: its sender waits for the ACK before it.
        ended: list[bool] = []

        def gone(operation: str, request: dict[str, Any]) -> bool:
            if operation == "delete_object" and "/r/" in request["Key"]:
                ended.append("000000000000" not in request["Key"])
            return operation == "put_object" and "/s/" in request["Key"] and any(ended)

        sent, received = over_s3(rig, Cut(bucket, gone), bucket)
    assert isinstance(sent, Stats), sent
    assert isinstance(received, Stats), received
    assert received.note == f"{UNKNOWING}no DONE within 3 s"
    assert digest(rig.got) == digest(rig.data)


@SIZE
def test_over_s3_an_ack_that_cannot_be_written_fails_both(
    tmp_path: Path, bucket: Any, size: int
) -> None:
    """The receiver knows that nobody will ever know: it has not said ACK."""
    rig = Rig(tmp_path, payload(size))
    with rig.stages():
        sent, received = over_s3(rig, bucket, Cut(bucket, puts("r", lambda number: number > 0)))
    assert isinstance(received, StorageError), received
    assert received.message.startswith("everything came, but the sender does not know it")
    assert isinstance(sent, StreamBroken), sent
    assert digest(rig.got) == digest(rig.data)


def test_over_s3_a_lost_ack_fails_the_sender_alone(tmp_path: Path, bucket: Any) -> None:
    """It was written, and the sender cannot read it."""
    rig = Rig(tmp_path, payload(5000))

    def gone(operation: str, request: dict[str, Any]) -> bool:
        return operation == "get_object" and "/r/" in request["Key"] and ended()

    def ended() -> bool:
        return len(rig.got) == 5000

    with rig.stages():
        sent, received = over_s3(rig, Cut(bucket, gone), bucket)
    assert isinstance(sent, PunchError), sent
    assert isinstance(received, Stats), received
    assert received.note.startswith(UNKNOWING)


def test_over_s3_a_slow_farewell_is_waited_for(tmp_path: Path, bucket: Any) -> None:
    """Two seconds cut it in the first release, and a whole stream failed."""
    rig = Rig(tmp_path, payload(5000))

    def slow(operation: str, request: dict[str, Any]) -> bool:
        if operation == "get_object" and "/s/" in request["Key"] and len(rig.got) == 5000:
            time.sleep(0.7)
        return False

    timing = dataclasses.replace(TIMING, linger=10.0)
    with rig.stages():
        sent, received = over_s3(rig, bucket, Cut(bucket, slow), silence=20.0, timing=timing)
    assert isinstance(sent, Stats), sent
    assert isinstance(received, Stats), received
    assert received.note == ""
    left = bucket.list_objects_v2(Bucket=BUCKET, Prefix=f"{PREFIX}{rig.sink[1:]}")
    assert "Contents" not in left
