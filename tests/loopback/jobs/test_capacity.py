"""A job that is wider than its function may be, on the local Lambda API."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest

from punchlib.errors import UsageError
from punchlib.jobs import capacity
from tests.support.ministack import MiniStack


@pytest.fixture
def function(ministack: MiniStack) -> tuple[Any, str]:
    client = ministack.client("lambda")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("handler.py", "def handler(event, context): pass\n")
    name = "capacity"
    client.create_function(
        FunctionName=name,
        Runtime="python3.12",
        Role="arn:aws:iam::000000000000:role/r",
        Handler="handler.handler",
        Code={"ZipFile": packed.getvalue()},
    )
    return client, name


def test_reserved(function: tuple[Any, str]) -> None:
    client, name = function
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=3)
    capacity.check(client, name, 3)
    with pytest.raises(UsageError, match=r"4 Lambda nodes.*reserved concurrency.* is 3"):
        capacity.check(client, name, 4)
    client.delete_function_concurrency(FunctionName=name)
    most, why = capacity.most_at_once(client, name)
    assert most is not None
    assert "unreserved" in why
    with pytest.raises(UsageError, match=f"unreserved concurrency is {most}"):
        capacity.check(client, name, most + 1)


def test_what_is_not_answered_refuses_nothing(ministack: MiniStack) -> None:
    class Mute:
        """No permission for either question."""

        def __getattr__(self, name: str) -> Any:
            from botocore.exceptions import ClientError

            def refuse(**_: object) -> None:
                raise ClientError({"Error": {"Code": "AccessDeniedException"}}, name)

            return refuse

    assert capacity.most_at_once(Mute(), "f") == (None, "")
    capacity.check(Mute(), "f", 10_000)
