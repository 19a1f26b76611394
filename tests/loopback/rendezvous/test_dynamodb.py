"""The rendezvous in DynamoDB's API, as it should be and on its bad days."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from punchlib import wiring
from punchlib.config import Config
from punchlib.errors import RendezvousError
from punchlib.rendezvous.dynamodb import DynamoDbStore
from punchlib.rendezvous.memory import MemoryStore
from punchlib.rendezvous.store import Slot
from punchlib.rendezvous.watcher import Watcher
from tests.support.ministack import MiniStack

V2 = '{"local_addr":"1.1.1.1:1","external_addr":"1.1.1.1:1","v":2}'
V1 = '{"local_addr":"1.1.1.1:1","external_addr":"1.1.1.1:1"}'
ONE, TWO = Slot("key", "0"), Slot("key", "1")


class BadDays:
    """Passes requests on to the real API, after as many faults as it is told.

    Attributes:
        faults: (HTTP status, error code, seconds to wait first) of the next requests.
        clock_ahead: seconds by which our clock is ahead of its `Date`.
    """

    def __init__(self, port: int) -> None:
        self.faults: list[tuple[int, str, float]] = []
        self.requests = 0
        self.clock_ahead = 0.0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                owner.requests += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = owner._answer(f"http://127.0.0.1:{port}/", body, self.headers)
                self.send_response_only(status)
                self.send_header("Date", formatdate(time.time() - owner.clock_ahead, usegmt=True))
                self.send_header("Content-Length", str(len(answer)))
                self.send_header("Content-Type", "application/x-amz-json-1.0")
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def _answer(self, url: str, body: bytes, headers: Any) -> tuple[int, bytes]:
        if self.faults:
            status, code, pause = self.faults.pop(0)
            time.sleep(pause)
            if status:
                fault = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "no"}
                return status, json.dumps(fault).encode()
        passed = {k: v for k, v in headers.items() if k.lower() not in ("host", "content-length")}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, passed)) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


@pytest.fixture
def bad_days(ministack: MiniStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[BadDays]:
    days = BadDays(ministack.port)
    thread = threading.Thread(target=days.server.serve_forever)
    thread.start()
    for name, value in (ministack.env | {"AWS_ENDPOINT_URL": days.url}).items():
        monkeypatch.setenv(name, value)
    yield days
    days.server.shutdown()
    thread.join()
    days.server.server_close()


@pytest.fixture
def config(bad_days: BadDays) -> Config:
    return replace(Config.from_env(), table=f"rdv-{time.time_ns()}")


def store_of(config: Config, patience: float = 20.0) -> DynamoDbStore:
    return DynamoDbStore(
        lambda: wiring.dynamodb_client(config), table=config.table, patience=patience
    )


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


async def register(store: DynamoDbStore, mine: Slot, text: str, *, refuse: bool = True) -> Any:
    peer = "1" if mine.label == "0" else "0"
    expires = int(time.time()) + 60
    return await store.register(mine, text, peer, expires=expires, refuse_v1_peer=refuse)


def test_exactly_one_is_second(config: Config) -> None:
    """The table is made on the way, by one of many that find it missing at once."""

    async def main() -> None:
        store = store_of(config)
        pairs = [(Slot(f"k{n}", "0"), Slot(f"k{n}", "1")) for n in range(12)]
        answers = await asyncio.gather(*(register(store, s, V2) for pair in pairs for s in pair))
        for a, b in zip(answers[::2], answers[1::2], strict=True):
            assert {a.peer, b.peer} == {None, V2}
        found = await store.read([s for pair in pairs for s in pair])
        assert len(found) == 24
        description = wiring.dynamodb_client(config).describe_time_to_live(TableName=config.table)
        assert description["TimeToLiveDescription"]["AttributeName"] == "expires_at"

    run(main)


def test_a_store_that_breaks_in_an_unknown_way_wakes_who_waits() -> None:
    class Broken(MemoryStore):
        async def read(self, slots: Iterable[Slot]) -> dict[Slot, str]:
            raise KeyError("Responses")

    async def main() -> None:
        watcher = Watcher(Broken())
        with pytest.raises(RendezvousError, match="KeyError"):
            async with asyncio.timeout(5):
                await watcher.changed(ONE, None)
        await watcher.close()

    run(main)


def test_more_keys_than_one_batch_holds(config: Config) -> None:
    async def main() -> None:
        store = store_of(config)
        slots = [Slot(f"k{n}", "0") for n in range(120)]
        await asyncio.gather(*(register(store, s, V2) for s in slots))
        calls = store.calls
        assert len(await store.read([*slots, Slot("nobody", "0")])) == 120
        assert store.calls - calls == 2

    run(main)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        (400, "ProvisionedThroughputExceededException", 0.0),
        (400, "ThrottlingException", 0.0),
        (500, "InternalServerError", 0.0),
        (503, "ServiceUnavailable", 0.0),
        (0, "", 2.0),  # an answer that takes seconds
    ],
)
def test_what_passes_is_tried_again(
    config: Config, bad_days: BadDays, fault: tuple[int, str, float]
) -> None:
    async def main() -> None:
        store = store_of(config)
        await register(store, ONE, V2)
        bad_days.faults = [fault] * (1 if fault[2] else 5)
        answer = await register(store, TWO, V2)
        assert answer.peer == V2
        assert not bad_days.faults

    run(main)


@pytest.mark.parametrize(
    ("code", "step"),
    [
        ("ExpiredTokenException", "renew"),
        ("UnrecognizedClientException", "renew"),
        ("AccessDeniedException", "allow dynamodb:UpdateItem"),
    ],
)
def test_what_does_not_pass_is_said_at_once(
    config: Config, bad_days: BadDays, code: str, step: str
) -> None:
    async def main() -> None:
        store = store_of(config)
        await store.ready()
        bad_days.faults = [(400, code, 0.0)] * 3
        started = time.monotonic()
        with pytest.raises(RendezvousError, match=code) as caught:
            await register(store, ONE, V2)
        assert time.monotonic() - started < 10.0  # not the store's patience
        assert step in caught.value.next_step
        assert caught.value.exit_code == 3

    run(main)


def test_patience_ends(config: Config, bad_days: BadDays) -> None:
    async def main() -> None:
        store = store_of(config, patience=1.5)
        await store.ready()
        bad_days.faults = [(500, "InternalServerError", 0.0)] * 1000
        with pytest.raises(RendezvousError, match=r"kept failing for 2 s.*InternalServerError"):
            await register(store, ONE, V2)
        assert bad_days.requests > 3

    run(main)


def test_without_credentials(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")

    async def main() -> None:
        with pytest.raises(RendezvousError, match="no AWS credentials"):
            await register(store_of(config), ONE, V2)

    run(main)


@pytest.mark.parametrize("ahead", [600.0, -600.0, 86_400.0])
def test_a_wrong_clock_is_named(config: Config, bad_days: BadDays, ahead: float) -> None:
    """AWS refuses signatures that are five minutes off; ours knows why by the answer's `Date`."""

    async def main() -> None:
        store = store_of(config)
        await store.ready()
        bad_days.clock_ahead = ahead
        bad_days.faults = [(400, "InvalidSignatureException", 0.0)] * 3
        where = "ahead of" if ahead > 0 else "behind"
        with pytest.raises(RendezvousError, match=rf"clock is \d+ s {where} AWS") as caught:
            await register(store, ONE, V2)
        said = int(caught.value.message.split("clock is ")[1].split()[0])
        assert abs(said - abs(ahead)) < 10
        assert "clock" in caught.value.next_step
        assert caught.value.code == "InvalidSignatureException"

    run(main)
