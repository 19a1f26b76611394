"""The rendezvous table in DynamoDB: hash key `key`, attribute `N_<label>` for each end."""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from punchlib.aws import errors
from punchlib.core.records import V2_MARK
from punchlib.errors import RendezvousError
from punchlib.rendezvous.store import Registered, Slot

#: DynamoDB's own limit for BatchGetItem.
BATCH = 100
#: Seconds for which the table keeps a record beyond its time (TTL): that time was told by a clock
#: which may be wrong, and what is left too long does no harm.
CLOCK_SLACK = 2 * 86_400
#: Threads for boto3, which blocks. More only queue on the interpreter.
THREADS = 8
#: Seconds: pauses between tries after a throttle, a 5xx or a lost connection.
FIRST_BACKOFF = 0.05
MAX_BACKOFF = 2.0

CONDITION_FAILED = "ConditionalCheckFailedException"


class DynamoDbStore:
    """See `RendezvousStore`.

    Args:
        make_client: makes the boto3 DynamoDB client; called once, in a worker thread, because
            importing boto3 takes longer than everything else at start-up.
        table: the table's name; it is made when it is missing.
        patience: seconds for which a throttled or unreachable store is tried again.
    """

    def __init__(
        self, make_client: Callable[[], Any], *, table: str = "rdv", patience: float = 300.0
    ) -> None:
        self.table = table
        self.patience = patience
        self.calls = 0
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="rdv")
        self._client: asyncio.Task[Any] | None = None
        self._make_client = make_client
        self._creating: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        try:
            await self._made_client()
        except Exception as exc:
            what = "rendezvous: no DynamoDB client could be made"
            ours = errors.translate(exc, what, RendezvousError)
            if ours is None:
                raise
            raise ours from exc

    async def register(
        self, mine: Slot, text: str, peer_label: str, *, expires: int, refuse_v1_peer: bool
    ) -> Registered:
        peer = f"N_{peer_label}"
        request = registration(self.table, mine, text, expires)
        if refuse_v1_peer:
            request["ConditionExpression"] = "attribute_not_exists(#peer) OR contains(#peer, :v2)"
            request["ExpressionAttributeNames"]["#peer"] = peer
            request["ExpressionAttributeValues"][":v2"] = {"S": V2_MARK}
            request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        try:
            answer = await self._call("update_item", request)
        except Exception as exc:
            if not errors.is_code(exc, CONDITION_FAILED):
                raise
            item: dict[str, Any] = exc.response.get("Item", {})  # type: ignore[attr-defined]
            return Registered(False, _text(item, peer))
        return Registered(True, _text(answer.get("Attributes", {}), peer))

    async def read(self, slots: Iterable[Slot]) -> dict[Slot, str]:
        wanted: dict[str, set[str]] = {}
        for slot in slots:
            wanted.setdefault(slot.key, set()).add(slot.label)
        keys = list(wanted)
        found: dict[Slot, str] = {}
        for start in range(0, len(keys), BATCH):
            left = keys[start : start + BATCH]
            while left:
                request = batch(self.table, left)
                answer = await self._call("batch_get_item", request)
                for item in answer.get("Responses", {}).get(self.table, []):
                    key = item["key"]["S"]
                    for label in wanted[key]:
                        text = _text(item, f"N_{label}")
                        if text is not None:
                            found[Slot(key, label)] = text
                again = answer.get("UnprocessedKeys", {}).get(self.table, {}).get("Keys", [])
                left = [item["key"]["S"] for item in again]
                if left:
                    await asyncio.sleep(random.uniform(0, FIRST_BACKOFF))
        return found

    async def remove(self, mine: Slot, text: str, *, instead: str = "") -> None:
        request: dict[str, Any] = {
            "TableName": self.table,
            "Key": {"key": {"S": mine.key}},
            "UpdateExpression": "REMOVE #me",
            "ConditionExpression": "#me = :me",
            "ExpressionAttributeNames": {"#me": f"N_{mine.label}"},
            "ExpressionAttributeValues": {":me": {"S": text}},
        }
        if instead:
            request["UpdateExpression"] = "SET #me = :instead"
            request["ExpressionAttributeValues"][":instead"] = {"S": instead}
        try:
            await self._call("update_item", request)
        except Exception as exc:
            if not errors.is_code(exc, CONDITION_FAILED):
                raise
            return  # A newer record of the same label stands there: it is not ours to remove.

    async def _call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Calls DynamoDB until it answers or patience ends.

        Raises:
            ClientError: only a failed condition, which is an answer.
            RendezvousError: everything else.
        """
        give_up = time.monotonic() + self.patience
        backoff = FIRST_BACKOFF
        what = f"rendezvous: DynamoDB {operation} on table {self.table}"
        while True:
            try:
                return await self._once(operation, request)
            except Exception as exc:
                if errors.is_code(exc, CONDITION_FAILED):
                    raise
                problem = str(exc)
                if errors.is_code(exc, "ResourceNotFoundException"):
                    await self._create_table()
                elif not errors.is_transient(exc):
                    ours = self._refused(exc, what)
                    if ours is None:
                        raise
                    raise ours from exc
            if time.monotonic() + backoff >= give_up:
                raise RendezvousError(
                    f"{what} kept failing for {self.patience:.0f} s: {problem}",
                    next_step="check AWS_ENDPOINT_URL, AWS_REGION and the table's capacity",
                )
            await asyncio.sleep(random.uniform(backoff / 2, backoff))
            backoff = min(backoff * 2, MAX_BACKOFF)

    async def _once(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        client = await self._made_client()
        self.calls += 1
        method = functools.partial(getattr(client, operation), **request)
        loop = asyncio.get_running_loop()
        answer: dict[str, Any] = await loop.run_in_executor(self._pool, method)
        return answer

    async def _made_client(self) -> Any:
        if self._client is None:
            loop = asyncio.get_running_loop()
            made = loop.run_in_executor(self._pool, self._make_client)
            self._client = asyncio.ensure_future(made)
        return await asyncio.shield(self._client)

    def _refused(self, exc: Exception, what: str) -> RendezvousError | None:
        ours = errors.translate(exc, what, RendezvousError)
        if ours is not None and ours.code == "AccessDeniedException":
            ours.next_step = (
                f"allow dynamodb:UpdateItem, BatchGetItem, CreateTable on table {self.table}"
            )
        return ours

    async def _create_table(self) -> None:
        # All connections of the process find the table missing at once; one of them makes it.
        if self._creating is None or self._creating.done():
            self._creating = asyncio.create_task(self._do_create_table())
        await asyncio.shield(self._creating)

    async def _do_create_table(self) -> None:
        try:
            await self._call(
                "create_table",
                {
                    "TableName": self.table,
                    "AttributeDefinitions": [{"AttributeName": "key", "AttributeType": "S"}],
                    "KeySchema": [{"AttributeName": "key", "KeyType": "HASH"}],
                    "BillingMode": "PAY_PER_REQUEST",
                },
            )
        except RendezvousError as exc:
            if exc.code != "ResourceInUseException":
                raise
        while True:
            answer = await self._call("describe_table", {"TableName": self.table})
            if answer["Table"]["TableStatus"] == "ACTIVE":
                break
            await asyncio.sleep(0.2)
        await self._enable_ttl()

    async def _enable_ttl(self) -> None:
        spec = {"Enabled": True, "AttributeName": "expires_at"}
        try:
            await self._call(
                "update_time_to_live", {"TableName": self.table, "TimeToLiveSpecification": spec}
            )
        except RendezvousError as exc:
            # Somebody else has just enabled it; records expire all the same.
            if exc.code != "ValidationException":
                raise


def registration(table: str, mine: Slot, text: str, expires: int) -> dict[str, Any]:
    """The UpdateItem that writes our record and brings the peer's."""
    return {
        "TableName": table,
        "Key": {"key": {"S": mine.key}},
        "UpdateExpression": "SET #me = :me, expires_at = :expires",
        "ExpressionAttributeNames": {"#me": f"N_{mine.label}"},
        "ExpressionAttributeValues": {
            ":me": {"S": text},
            ":expires": {"N": str(expires + CLOCK_SLACK)},
        },
        "ReturnValues": "ALL_NEW",
    }


def batch(table: str, keys: Sequence[str]) -> dict[str, Any]:
    """The BatchGetItem for at most `BATCH` keys."""
    wanted = [{"key": {"S": key}} for key in keys]
    return {"RequestItems": {table: {"Keys": wanted, "ConsistentRead": True}}}


def _text(item: dict[str, Any], attribute: str) -> str | None:
    value = item.get(attribute, {})
    return value.get("S") if isinstance(value, dict) else None
