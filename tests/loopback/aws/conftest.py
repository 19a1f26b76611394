"""AWS for the tests of deployments: MiniStack, with a strict CloudFormation in front of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from punchlib.aws import clients
from punchlib.aws.deploy import Desk, Wish, deploy
from punchlib.config import Config
from tests.support import strict_stacks
from tests.support.ministack import MiniStack
from tests.support.strict_stacks import Cloud


@pytest.fixture(scope="session")
def _strict(ministack: MiniStack) -> Iterator[tuple[str, Cloud]]:
    with strict_stacks.serve(ministack) as running:
        yield running


@pytest.fixture
def strict(
    _strict: tuple[str, Cloud], ministack: MiniStack, monkeypatch: pytest.MonkeyPatch
) -> Cloud:
    """The stacks. Each test has names of its own: what others made is still there."""
    url, cloud = _strict
    for name, value in (ministack.env | {"AWS_ENDPOINT_URL_CLOUDFORMATION": url}).items():
        monkeypatch.setenv(name, value)
    for name in ("PUNCH_TABLE", "PUNCH_FUNCTION", "AWS_BUCKET"):
        monkeypatch.delenv(name, raising=False)
    # As in the engine: making one takes longer than all else here.
    monkeypatch.setattr(clients, "_keeping", True)
    for left in (cloud.fail, cloud.stuck, cloud.calls, cloud.change_sets):
        left.clear()
    return cloud


class Person:
    """Somebody who deploys: what was shown, and the answer."""

    def __init__(self, *, answer: bool = True) -> None:
        self.lines: list[str] = []
        self.asked = 0
        self._answer = answer

    @property
    def desk(self) -> Desk:
        return Desk(self.lines.append, self._ask)

    def _ask(self, lines: list[str]) -> bool:
        self.lines += lines
        self.asked += 1
        return self._answer

    @property
    def read(self) -> str:
        return "\n".join(self.lines)


def go(wish: Wish, person: Person) -> dict[str, str]:
    return deploy(wish, person.desk, Config.from_env())


@pytest.fixture
def person() -> Person:
    return Person()


@pytest.fixture
def wish() -> Wish:
    """Names of its own, and an image that is in a registry already."""
    name = f"t{uuid.uuid4().hex[:8]}"
    return Wish(
        image="punch-lambda:local",
        bucket=f"{name}-bucket",
        function=f"{name}-function",
        table=f"{name}-table",
        stack=name,
    )
