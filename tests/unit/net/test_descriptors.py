"""How many connections fit a limit on descriptors, and whose turn it is."""

from __future__ import annotations

import asyncio

import pytest

from punchlib.net.descriptors import (
    PROCESS,
    TURN,
    WAITING,
    Turn,
    allowance,
    most_connections,
    needed,
)

LAMBDA = 1024


@pytest.mark.parametrize("limit", [70, 128, 256, LAMBDA, 4096])
def test_what_is_allowed_never_exceeds_the_limit(limit: int) -> None:
    for connections in range(1, limit):
        allowed = allowance(connections, limit)
        assert (allowed is not None) == (connections <= most_connections(limit))
        assert (allowed is not None) == (needed(connections) <= limit)
        if allowed is not None:
            assert allowed.turns
            held = PROCESS + connections * (WAITING + allowed.ports) + allowed.turns * TURN
            assert held <= limit


def test_few_connections_lack_nothing_and_256_fit_lambda() -> None:
    few, many = allowance(64, LAMBDA), allowance(256, LAMBDA)
    assert few is not None and few.ports == 2 and few.turns and few.turns >= 64
    assert many is not None and many.ports == 1 and many.turns and many.turns >= 16


def test_turns_are_taken_in_order_once_each_and_given_back() -> None:
    async def main() -> None:
        turns = asyncio.Semaphore(1)
        first, *others = (Turn(turns) for _ in range(3))
        await first.take()
        await first.take()  # it is ours: nothing to wait for
        taken: list[int] = []

        async def waits(n: int, turn: Turn) -> None:
            await turn.take()
            taken.append(n)
            turn.give_back()
            turn.give_back()  # and once only

        waiting = [asyncio.create_task(waits(n, turn)) for n, turn in enumerate(others)]
        await asyncio.sleep(0)
        assert not taken
        first.give_back()
        await asyncio.gather(*waiting)
        assert taken == [0, 1]
        assert not turns.locked()
        await turns.acquire()
        assert turns.locked()

    asyncio.run(main())


def test_who_is_stopped_in_the_queue_holds_nobody_up() -> None:
    async def main() -> None:
        turns = asyncio.Semaphore(1)
        first, second, third = (Turn(turns) for _ in range(3))
        await first.take()
        stopped = asyncio.create_task(second.take())
        await asyncio.sleep(0)
        stopped.cancel()
        await asyncio.wait([stopped])
        second.give_back()  # has none: gives none
        assert turns.locked()
        first.give_back()
        await asyncio.wait_for(third.take(), 10)

    asyncio.run(main())
