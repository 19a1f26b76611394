"""The lab behaves like the NATs on which docs/nat-traversal.md's table was measured.

With the plainest implementation of each technique: the naive one must fail where it failed there,
and hold and dial must succeed everywhere, or a NAT here is not what it seems.
"""

from __future__ import annotations

import random
import time

import pytest

from tests.support.netlab import STUN_ADDRESSES, Lab
from tests.support.netlab_agent import Agent
from tests.support.netlab_kinds import KINDS
from tests.support.netlab_services import STUN_PORT

pytestmark = pytest.mark.nat

RTT = 0.02
#: Seconds after the holder at which the dialler's poll shows it. The least is for a busy machine.
POLL = (0.03, 0.1)


class Pair:
    """Two agents that connect to each other from fresh ports, time after time."""

    def __init__(self, a: Agent, b: Agent, seed: int) -> None:
        self._agents = (a, b)
        self._chance = random.Random(seed)

    def attempt(self, techniques: tuple[str, str], skew: float, seconds: float) -> bool:
        """Whether a token crossed both ways; the second end starts `skew` seconds later."""
        servers = [(STUN_ADDRESSES[0], STUN_PORT)]
        seen = [agent.ask(do="map", servers=servers) for agent in self._agents]
        at = time.monotonic() + 0.02
        for i, agent in enumerate(self._agents):
            agent.send(
                do="connect",
                technique=techniques[i],
                port=seen[i]["port"],
                remote=seen[1 - i]["mapped"][0],
                at=at + i * skew,
                seconds=seconds,
            )
        answers = [agent.answer() for agent in self._agents]
        for agent in self._agents:
            agent.ask(do="forget")
        return all(answer["ok"] for answer in answers)

    def naive(self, first: int) -> bool:
        """One connect each; the first SYN has arrived before the other end sends its own."""
        skew = self._chance.uniform(0.15, 0.3)
        return self.attempt(("one", "one"), -skew if first else skew, 1.5)

    def hold_and_dial(self) -> bool:
        """The holder is the second to arrive; the first sees it at its next poll."""
        techniques = [("hold", "dial"), ("dial", "hold")][holder := self._chance.randrange(2)]
        skew = self._chance.uniform(*POLL)
        return self.attempt(techniques, -skew if holder else skew, 4.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("a", "b", "naive"),
    [
        ("lambda", "lambda", (True, True)),
        # The first SYN is refused where it meets the NAT that answers.
        ("ec2", "eim-rst", (False, True)),
        ("eim-rst", "eim-rst", (False, False)),
        ("eim-icmp", "eim-icmp", (False, False)),
        ("eim-eif", "eim-random-rst", (False, False)),
        ("double", "double-rst", (False, True)),
    ],
)
def test_naive_and_hold_and_dial(lab: Lab, a: str, b: str, naive: tuple[bool, bool]) -> None:
    """`naive` says whether one connect each succeeds when A is first, and when B is."""
    with lab.site(KINDS[a]) as left, lab.site(KINDS[b]) as right, lab.wire(left, right, rtt=RTT):
        pair = Pair(Agent(left.hosts[0]), Agent(right.hosts[0]), seed=1)
        assert (pair.naive(first=0), pair.naive(first=1)) == naive
        assert all(pair.hold_and_dial() for _ in range(5))
