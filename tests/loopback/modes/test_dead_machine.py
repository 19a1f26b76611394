"""A machine that vanishes: nothing comes from it any more, not even TCP's acknowledgements."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from punchlib.net import channel, sockets
from tests.support import ministack
from tests.support.fault_gate import private_network
from tests.support.pashlib_rig import DEADLINE, MODES, PATIENCE, SECURITIES, Gated, pair, world
from tests.support.stream_rig import payload

#: A PING every 10 s, 15 s without an answer; and a busy machine.
NOTICED = DEADLINE


def asks_again_soon() -> bool:
    """This kernel can be told to; an older one asks ever less often, the longer a reader stands."""
    with socket.socket() as sock:
        channel.tune(sock)
        try:
            return bool(sock.getsockopt(socket.IPPROTO_TCP, sockets.TCP_RTO_MAX_MS))
        except OSError:
            return False


_RULES = """
table ip vanished {{
    chain input {{
        type filter hook input priority 0
        tcp dport {spared} accept
        tcp sport {spared} accept
        ip protocol tcp drop
    }}
}}
"""


@pytest.mark.slow
@pytest.mark.nat
def test_both_ends_notice_also_behind_a_reader_that_never_moves(tmp_path: Path) -> None:
    """The receiver cannot read on, so it hears nothing; only its PINGs go unacknowledged."""
    if os.geteuid() != 0:
        pytest.skip("needs root for a network namespace")
    with ExitStack() as stack:
        ns = stack.enter_context(private_network())
        rendezvous, process = ministack.start(tmp_path)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        there = stack.enter_context(world(tmp_path, rendezvous.env))
        running = []
        for mode in MODES:
            for security in SECURITIES:
                folder = tmp_path / f"{mode}-{security}"
                folder.mkdir()
                rig = Gated(folder, payload(64 << 20), pause_at=1)
                both = stack.enter_context(
                    pair(
                        there,
                        mode,
                        folder,
                        [(rig.source, rig.sink)],
                        PUNCH_SECURITY=security,
                        PUNCH_ROUTES="host",
                        PUNCH_STALL_TIMEOUT="300",
                    )
                )
                stack.enter_context(rig.stages())
                stack.callback(rig.go_on.set)
                running.append((both, rig))
        for both, rig in running:
            assert rig.reached.wait(PATIENCE), both
        # Until every queue is full, and the kernel's own pauses are longer than its patience.
        time.sleep(45.0 if asks_again_soon() else 1.0)
        ns.nft(_RULES.format(spared=rendezvous.port))
        vanished = time.monotonic()
        for both, _ in running:
            assert both.codes() == (6, 6), both
            assert max(both.send.ended_at, both.recv.ended_at) - vanished < NOTICED, both
            assert any("no acknowledgement for 15 s" in line for line in both.recv.said), both
            assert any("dead or unreachable" in line for line in both.send.said), both
