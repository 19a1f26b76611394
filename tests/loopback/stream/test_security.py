"""Who gets in: the peer of the rendezvous record, and nobody else gets a byte of payload."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import ssl
from functools import partial
from pathlib import Path

import pytest

from punchlib.config import Security
from punchlib.core.handshake import Identity, Terms
from punchlib.core.timing import TIMING
from punchlib.errors import PeerNotVerified, StreamBroken, WireMismatch
from punchlib.net.channel import SocketChannel
from punchlib.net.verifying import nominate, open_channel
from punchlib.pump.stream import Stats, receive_stream, send_stream
from tests.support.fault_proxy import Fault, FaultProxy, Kind
from tests.support.stream_rig import (
    FAST,
    Listener,
    Rig,
    both,
    dial,
    identity,
    run,
    tcp_pair,
    terms_pair,
)

SECURITIES = ("authenticated", "encrypted")


async def try_both(sending: Terms, receiving: Terms) -> tuple[object, object]:
    """How both handshakes end; a TLS client that believes it is in is asked for a first frame."""
    here, there = tcp_pair()

    async def one(sock: socket.socket, terms: Terms) -> SocketChannel:
        channel = await open_channel(sock, terms, timing=FAST)
        if not channel.verified:
            try:
                await channel.receive()
            except BaseException:
                channel.close()
                raise
        return channel

    results = await asyncio.gather(
        one(here, sending), one(there, receiving), return_exceptions=True
    )
    for result in results:
        if isinstance(result, SocketChannel):
            result.close()
    return results[0], results[1]


def refused(sending: Terms, receiving: Terms) -> tuple[str, str]:
    """Asserts that both ends refuse; what they say."""
    sent, received = run(lambda: try_both(sending, receiving))
    for result in (sent, received):
        # The one that refuses closes, and the other may see no more than that.
        assert isinstance(result, PeerNotVerified | StreamBroken), result
    assert isinstance(sent, PeerNotVerified) or isinstance(received, PeerNotVerified)
    return str(sent), str(received)


def test_a_wrong_job_key_is_refused() -> None:
    sending, receiving = terms_pair()
    _, said = refused(dataclasses.replace(sending, job_key=b"guessed"), receiving)
    assert "does not know the key" in said


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_a_certificate_that_is_not_the_records_is_refused(who: str) -> None:
    sending, receiving = terms_pair("encrypted")
    other = Identity.generate()
    if who == "sender":
        sending = dataclasses.replace(sending, my_identity=other)
    else:
        receiving = dataclasses.replace(receiving, my_identity=other)
    said = refused(sending, receiving)
    assert any("certificate is not the one in its rendezvous record" in one for one in said)


def test_a_certificate_that_the_trusted_one_signed_is_refused() -> None:
    """The record's certificate is trusted itself, not as an authority for others."""
    from datetime import UTC, datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    trusted = identity(0)
    issuer = x509.load_der_x509_certificate(trusted.cert_der)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime(2000, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2099, 1, 1, tzinfo=UTC))
        .sign(
            serialization.load_pem_private_key(trusted.key_pem, None),  # type: ignore[arg-type]
            hashes.SHA256(),
        )
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    forged = Identity(leaf.public_bytes(serialization.Encoding.DER), pem)
    sending, receiving = terms_pair("encrypted")
    refused(dataclasses.replace(sending, my_identity=forged), receiving)


@pytest.mark.parametrize("security", SECURITIES)
def test_two_connections_of_one_pair_of_processes_cannot_be_crossed(security: str) -> None:
    """The same certificates, the same keys, but the sides of two different attempts."""
    sending, _ = terms_pair(security)
    _, receiving = terms_pair(security)
    said = refused(sending, receiving)
    assert any("another attempt" in one or "greets from side" in one for one in said)


def test_a_client_without_a_server_name_is_refused() -> None:
    sending, receiving = terms_pair("encrypted")
    assert sending.my_identity is not None

    async def work() -> None:
        here, there = tcp_pair()
        accepting = asyncio.create_task(open_channel(there, receiving, timing=FAST))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.get_running_loop().create_connection(
                asyncio.Protocol, sock=here, ssl=context, server_hostname=""
            )
        with pytest.raises(PeerNotVerified):
            await accepting

    run(work)


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("sending", [True, False])
def test_two_ends_of_one_role_are_refused(security: str, sending: bool) -> None:
    one, two = terms_pair(security)
    twin = dataclasses.replace(
        two if sending else one,
        sending=sending,
    )
    first = one if sending else two
    results = run(lambda: try_both(first, twin))
    for result in results:
        assert isinstance(result, PeerNotVerified | StreamBroken), result


@pytest.mark.parametrize("sender", Security)
def test_nobody_can_be_talked_down(sender: Security) -> None:
    """One end wants more than the other: it is refused, whoever speaks first."""
    (receiver,) = set(Security) - {sender}
    sending, receiving = terms_pair("encrypted")
    refused(
        dataclasses.replace(sending, security=sender),
        dataclasses.replace(receiving, security=receiver),
    )


@pytest.mark.parametrize("security", SECURITIES)
def test_an_old_peer_on_the_port_is_named(security: str) -> None:
    sending, _ = terms_pair(security)

    async def work() -> None:
        here, there = tcp_pair()
        there.sendall(bytes(128))
        with pytest.raises(WireMismatch):
            await open_channel(here, sending, timing=FAST)
        there.close()

    run(work)


def test_a_silent_peer_ends_at_the_deadline() -> None:
    for security in SECURITIES:
        for terms in terms_pair(security):

            async def work(terms: Terms = terms) -> None:
                here, there = tcp_pair()
                with pytest.raises(PeerNotVerified, match="did not identify itself"):
                    await open_channel(here, terms, timing=FAST.scaled(0.5))
                assert here.fileno() == -1
                there.close()

            run(work)


@pytest.mark.parametrize("security", SECURITIES)
def test_cancelling_closes_the_socket(security: str) -> None:
    async def work() -> None:
        for terms in terms_pair(security):
            here, there = tcp_pair()
            task = asyncio.create_task(open_channel(here, terms, timing=FAST))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            there.setblocking(True)
            there.settimeout(2)
            while there.recv(65536):
                pass
            there.close()

    run(work)


@pytest.mark.parametrize("security", SECURITIES)
def test_encryption_costs_no_round_trip(tmp_path: Path, security: str) -> None:
    """With d of delay each way the first payload is in the FIFO 3 d after the dial, on both wires:
    greeting or ClientHello, the answer, the first frame."""
    sending, receiving = terms_pair(security)

    async def work(rig: Rig, delay: float) -> float:
        listener = Listener(receiving, timing=TIMING)
        loop = asyncio.get_running_loop()
        async with FaultProxy(listener.address, Fault(Kind.NONE), delay=delay).running() as proxy:
            started = loop.time()

            async def send() -> Stats:
                channel = await dial(proxy.address, sending, timing=TIMING)
                return await send_stream(channel, rig.reader(), timing=TIMING)

            async def receive() -> Stats:
                channel = await listener.nominate()
                return await receive_stream(channel, rig.writer(), timing=TIMING)

            _, received = await both(send(), receive())
            assert received.first_byte_at is not None
            return received.first_byte_at - started

    for delay in (0.15, 0.3, 0.6, 1.2):  # what a busy machine adds does not grow with it
        folder = tmp_path / str(delay)
        folder.mkdir()
        rig = Rig(folder, b"x")
        with rig.stages():
            taken = run(partial(work, rig, delay)) / delay
        if taken < 4:
            break
    assert 3 <= taken < 4


def dated(years: tuple[int, int]) -> Identity:
    """An identity whose certificate is good in these years only."""
    from datetime import UTC, datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(Identity.generate().key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "punch")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(years[0], 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(years[1], 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Identity(made.public_bytes(serialization.Encoding.DER), pem)


@pytest.mark.parametrize("years", [(2001, 2002), (2090, 2091)])
def test_a_certificates_dates_do_not_count(years: tuple[int, int]) -> None:
    """A clock may be wrong by years; the certificate is the record's, byte for byte."""
    odd, usual = dated(years), identity(0)

    def terms(sending: bool) -> Terms:
        mine, theirs = (odd, usual) if sending else (usual, odd)
        sides = ("0a" * 8, "1b" * 8) if sending else ("1b" * 8, "0a" * 8)
        return Terms("k", sending, *sides, my_identity=mine, peer_cert=theirs.cert_der)

    async def main() -> None:
        async def one(sock: socket.socket, sending: bool) -> None:
            channel = await open_channel(sock, terms(sending), timing=FAST)
            await nominate(channel, sending=sending)
            assert channel.verified
            channel.close()

        here, there = tcp_pair()
        await asyncio.gather(one(here, True), one(there, False))

    run(main)
