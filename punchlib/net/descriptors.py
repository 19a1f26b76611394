"""How many connections of one process fit its limit on descriptors, and how many attempts at once.

Lambda gives a process 1,024. A connection that waits for its peer holds its FIFO, a listener, and
one socket for each punching port; one that is up, its FIFO and one socket. In between, while it
registers and while it makes an attempt, it holds more: for that there are *turns*, as many as the
limit has room for beside all that waits.

Two processes can wait for each other's turns for ever only if one holds a turn while it waits for a
peer that has none. It does not: a turn is given back when the record stands and no peer is there,
and what is done with one takes a bounded time. A peer whose attempt runs out meanwhile says so in
its record, and is followed like any other; a listener takes its call even without a turn.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

#: What a process has beside its connections: streams, loop, engine, AWS clients.
PROCESS = 64
#: A connection that waits: its FIFO and its listener; and the same for each punching port.
WAITING = 2
#: What a turn may add: checks of punching pairs and host candidates, strangers, a question to STUN.
TURN = 8
#: So few turns at a time would make a late peer wait for seconds.
FEWEST_TURNS, GOOD_TURNS = 8, 16
#: Punching ports of a connection. The second makes up for a lost or early SYN of the first.
PORTS = 2


@dataclass(frozen=True)
class Allowance:
    """What each connection of a process may hold.

    Attributes:
        ports: punching ports of a connection.
        turns: how many may register or make an attempt at once; None: all.
    """

    ports: int = PORTS
    turns: int | None = None


def needed(connections: int) -> int:
    """The descriptors that so many connections need, at the least."""
    return _waiting(connections, 1) + min(FEWEST_TURNS, connections) * TURN


def most_connections(limit: int) -> int:
    """How many connections fit a limit."""
    return next((n for n in range(limit, 0, -1) if needed(n) <= limit), 0)


def allowance(connections: int, limit: int) -> Allowance | None:
    """What so many connections may hold under a limit; None when they do not fit.

    Many have one punching port each: that costs a late second where a SYN is lost, and no route.
    """
    for ports, fewest in ((PORTS, GOOD_TURNS), (1, FEWEST_TURNS)):
        turns = (limit - _waiting(connections, ports)) // TURN
        if turns >= min(fewest, connections):
            return Allowance(ports, turns)
    return None


def _waiting(connections: int, ports: int) -> int:
    return PROCESS + connections * (WAITING + ports)


class Turn:
    """One connection's turn; taken and given back as often as it likes.

    Args:
        turns: those of the process; None: there are enough.
    """

    def __init__(self, turns: asyncio.Semaphore | None) -> None:
        self._turns = turns
        self._mine = False

    async def take(self) -> None:
        """Waits for it, first come first served; at once when it is ours already."""
        if self._turns is not None and not self._mine:
            await self._turns.acquire()
            self._mine = True

    def give_back(self) -> None:
        if self._turns is not None and self._mine:
            self._turns.release()
            self._mine = False
