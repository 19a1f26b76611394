"""The embedded STUN server, with our client's codec and with strangers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from punchlib.core import stun
from tests.support.jobtools import wait_until

ADDRESSES = ("127.0.0.1", "127.0.0.2")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.create_server((ADDRESSES[0], 0)) as probe:
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "punchlib.local.stun_server"]
    process = subprocess.Popen([*command, *(f"{a}:{port}" for a in ADDRESSES)])

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((ADDRESSES[-1], port)) == 0

    wait_until(listens)
    yield port
    process.terminate()
    assert process.wait(5) == 0


@pytest.mark.parametrize("address", ADDRESSES)
def test_udp(address: str, port: int) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(b"no STUN", (address, port))
        transaction = os.urandom(12)
        client.sendto(stun.binding_request(transaction), (address, port))
        answer, sender = client.recvfrom(2048)
        assert sender == (address, port)
        mapped = stun.parse_response(answer, transaction).mapped
        assert mapped.port == client.getsockname()[1]


@pytest.mark.parametrize("address", ADDRESSES)
def test_tcp_two_requests_in_pieces_on_one_connection(address: str, port: int) -> None:
    with socket.create_connection((address, port), timeout=5) as client:
        for _ in range(2):
            transaction = os.urandom(12)
            request = stun.binding_request(transaction)
            client.sendall(request[:7])
            client.sendall(request[7:])
            answer = b""
            while (size := stun.message_length(answer)) is None or len(answer) < size:
                answer += client.recv(4096)
            mapped = stun.parse_response(answer, transaction).mapped
            assert (mapped.host, mapped.port) == client.getsockname()


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n" * 3, b"\x01\x01" + bytes(18), b"\0"])
def test_strangers_get_nothing(data: bytes, port: int) -> None:
    with socket.create_connection((ADDRESSES[0], port), timeout=5) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
