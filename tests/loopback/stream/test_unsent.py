"""What waits unsent in the sockets of a process has one budget."""

from __future__ import annotations

import contextlib
import socket

import pytest

from punchlib.pump.unsent import BUDGET, shared
from tests.support.stream_rig import tcp_pair


def share(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65])
def test_all_senders_together_stay_within_the_budget(count: int) -> None:
    with contextlib.ExitStack() as stack:
        senders = []
        for _ in range(count):
            sender, receiver = tcp_pair()
            stack.enter_context(sender)
            stack.enter_context(receiver)
            stack.enter_context(shared(sender))
            senders.append(sender)
        assert BUDGET / 2 < sum(map(share, senders)) <= BUDGET
        assert len({share(sender) for sender in senders}) == 1


def test_who_is_left_gets_what_the_others_had() -> None:
    (one, a), (other, b) = tcp_pair(), tcp_pair()
    with one, other, a, b, shared(one):
        with shared(other):
            assert share(one) == BUDGET // 2
        assert share(one) == BUDGET
