"""Who knocks, and who stands in the middle: what they get, and what they cannot do."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
from pathlib import Path

import pytest

from punchlib.core.handshake import GREETING_SIZE, Greeter, Identity
from punchlib.errors import PeerNotVerified, StreamBroken
from tests.loopback.stream.test_security import SECURITIES, refused
from tests.support.fault_proxy import Fault, FaultProxy, Kind
from tests.support.stream_rig import (
    Listener,
    Outcome,
    Rig,
    assert_whole,
    dial,
    payload,
    run,
    stream,
    terms_pair,
)


def strangers(address: tuple[str, int], said: list[bytes]) -> list[socket.socket]:
    """Connections of strangers that have said something each."""
    out = []
    for words in said:
        sock = socket.create_connection(address)
        sock.sendall(words)
        out.append(sock)
    return out


@pytest.mark.parametrize("security", SECURITIES)
def test_strangers_get_nothing_and_disturb_nothing(tmp_path: Path, security: str) -> None:
    """Silent ones, babblers and a recorded greeting, before and while the real peer comes."""
    sending, receiving = terms_pair(security)
    rig = Rig(tmp_path, payload(200_000))
    words = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(128),
        os.urandom(500),
        b"\x16\x03\x01\xff\xff" + os.urandom(100),
        Greeter(sending).greeting(),
        Greeter(dataclasses.replace(sending, my_side="00" * 8)).greeting(),
    ]

    async def work() -> tuple[Outcome, Outcome]:
        listener = Listener(receiving)
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        nominating = asyncio.create_task(listener.nominate())
        crowd = await asyncio.to_thread(strangers, listener.address, words)
        await asyncio.sleep(0.1)
        sender = await dial(listener.address, sending)
        outcomes = await stream(rig, sender, await nominating)
        for sock in crowd:
            sock.settimeout(2)
            heard = b""
            try:
                while piece := sock.recv(65536):
                    heard += piece
            except ConnectionResetError:
                pass
            # A TLS alert at most, or the answer to a genuine greeting (a replayed one here).
            assert len(heard) in (0, 7, GREETING_SIZE), heard
            assert rig.data[:64] not in heard
            sock.close()
        for error in listener.refused:
            assert isinstance(error, PeerNotVerified | StreamBroken), error
        assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
        return outcomes

    with rig.stages():
        outcomes = run(work)
    assert_whole(rig, outcomes)


def test_a_greeting_replayed_in_the_same_attempt_cannot_send(tmp_path: Path) -> None:
    """The forwarder sends every byte of the sender on a second connection too, and first."""
    rig = Rig(tmp_path, payload(100_000))
    sending, receiving = terms_pair()

    async def work() -> tuple[Outcome, Outcome]:
        listener = Listener(receiving)
        async with FaultProxy(listener.address, Fault(Kind.DUPLICATE)).running() as proxy:
            sender, receiver = await asyncio.gather(
                dial(proxy.address, sending), listener.nominate()
            )
            return await stream(rig, sender, receiver)

    with rig.stages():
        outcomes = run(work)
    assert_whole(rig, outcomes)


@pytest.mark.parametrize("security", SECURITIES)
def test_a_forwarder_in_the_middle(tmp_path: Path, security: str) -> None:
    """Harmless to `encrypted`; it can read along in `authenticated`, as docs/security.md says."""
    secret = b"the secret of the payload " * 1000
    rig = Rig(tmp_path, secret)
    sending, receiving = terms_pair(security)

    async def work() -> tuple[bool, tuple[Outcome, Outcome]]:
        listener = Listener(receiving)
        async with FaultProxy(listener.address, Fault(Kind.NONE), record=True).running() as proxy:
            sender, receiver = await asyncio.gather(
                dial(proxy.address, sending), listener.nominate()
            )
            outcomes = await stream(rig, sender, receiver)
            return secret[:26] in proxy.recorded, outcomes

    with rig.stages():
        readable, outcomes = run(work)
    assert_whole(rig, outcomes)
    assert readable is (security == "authenticated")


def test_a_terminating_forwarder_is_refused() -> None:
    """It speaks TLS to both ends, with a certificate of its own that says the same name."""
    sending, receiving = terms_pair("encrypted")
    own = Identity.generate()
    to_sender = dataclasses.replace(receiving, my_identity=own)
    refused(sending, to_sender)
    to_receiver = dataclasses.replace(sending, my_identity=own)
    refused(to_receiver, receiving)
