"""Every view of the network has its words, each with what follows for streams."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from punchlib.config import Config, Route
from punchlib.core.candidates import TransportAddress
from punchlib.core.records import Filtering, Mapping, Nat
from punchlib.doctor.finding import Finding, Level
from punchlib.doctor.nat_words import findings
from punchlib.doctor.network import ARRIVED, DIED, LADDER, SILENCE, Answer, View

GOOD = Answer("stun.example:3478", 12.0)
DEAD = Answer("dead.example:3478", trouble="no answer within 3 s")
INSIDE, OUTSIDE = "192.168.1.5", "198.51.100.7"
#: S3 is there as a last route.
CONFIG = Config(bucket="b")


def port(inside: int, outside: int, at: str = OUTSIDE) -> tuple[TransportAddress, TransportAddress]:
    return TransportAddress(INSIDE, inside), TransportAddress(at, outside)


HOME = View(
    tcp=(GOOD,),
    udp=(GOOD,),
    ports=(port(1000, 1000), port(1001, 1001)),
    nat=Nat(Mapping.INDEPENDENT, Filtering.DEPENDENT),
    classic="Restric Port NAT",
    syns={2: DIED, 3: ARRIVED, 4: ARRIVED, 5: ARRIVED, 6: ARRIVED},
)
UNPREDICTABLE = replace(
    HOME, ports=(port(1000, 5123), port(1001, 7777)), nat=Nat(Mapping.DEPENDENT)
)


def said(view: View, config: Config = CONFIG) -> dict[str, Finding]:
    return {f.name: f for f in findings(view, config)}


def test_a_home_network_is_well() -> None:
    found = said(HOME)
    assert {f.level for f in found.values()} == {Level.OK}
    assert "endpoint-independent" in found["mapping"].what
    assert "only whom we have sent to" in found["filtering"].what
    assert "kept, 2 of 2" in found["port"].what
    assert "port restricted cone" in found["STUN over UDP"].what
    assert found["low-TTL SYNs"].what == (
        "they leave this network: TTL 2 died on the way, as it should;"
        " 3, 4, 5, 6 reached the server"
    )


def test_ports_that_nobody_can_predict() -> None:
    finding = said(UNPREDICTABLE)["mapping"]
    assert finding.level is Level.WARN
    assert finding.what.startswith("each destination gets its own port")
    assert "direct connections to peers that filter are impossible" in finding.what
    assert finding.what.endswith("the S3 route will be used")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (Config(), "AWS_BUCKET is not set"),
        (Config(bucket="b", routes=(Route.PUNCHED,)), "PUNCH_ROUTES leaves S3 out"),
    ],
)
def test_the_same_without_s3_is_a_failure(config: Config, why: str) -> None:
    finding = said(UNPREDICTABLE, config)["mapping"]
    assert finding.level is Level.FAIL
    assert why in finding.what


def test_the_same_where_anybody_may_come_in() -> None:
    view = replace(UNPREDICTABLE, nat=Nat(Mapping.DEPENDENT, Filtering.INDEPENDENT))
    assert said(view)["mapping"].level is Level.OK
    assert "peers dial us" in said(view)["mapping"].what


def test_no_nat() -> None:
    at = TransportAddress(OUTSIDE, 1000)
    found = said(replace(HOME, ports=((at, at),), nat=Nat(Mapping.NONE, Filtering.INDEPENDENT)))
    assert "no NAT" in found["mapping"].what
    assert "this network lets anybody in" in found["filtering"].what
    assert "this machine's own: not shared" in found["public address"].what


def test_what_is_not_known_is_a_warning() -> None:
    found = said(replace(HOME, nat=Nat(), classic=""))
    assert found["mapping"].level is found["filtering"].level is Level.WARN
    assert "RFC 5780" in found["filtering"].next_step
    assert "no RFC 3489 name" in found["STUN over UDP"].what


def test_addresses() -> None:
    two = replace(HOME, ports=(port(1, 1), port(2, 2, "198.51.100.8")))
    assert "several for this machine" in said(two)["public address"].what
    carrier = replace(
        HOME, ports=((TransportAddress("100.64.0.9", 1), TransportAddress(OUTSIDE, 1)),)
    )
    assert "RFC 6598" in said(carrier)["public address"].what
    assert "every port was free there" in said(HOME)["public address"].what
    assert "shared, as its ports are given out anew" in said(UNPREDICTABLE)["public address"].what
    wrong = said(HOME, replace(CONFIG, public_ip="203.0.113.9"))["public address"]
    assert wrong.level is Level.WARN and "203.0.113.9" in wrong.what


def test_low_ttl_syns_that_are_eaten() -> None:
    finding = said(replace(HOME, syns=dict.fromkeys(LADDER, SILENCE)))["low-TTL SYNs"]
    assert finding.level is Level.WARN
    assert "eats them" in finding.what


@pytest.mark.parametrize(
    ("tcp", "udp", "levels"),
    [
        ((GOOD, DEAD), (GOOD, DEAD), (Level.WARN, Level.WARN)),
        ((DEAD,), (GOOD,), (Level.WARN, Level.OK)),
        ((GOOD,), (DEAD,), (Level.OK, Level.WARN)),
        ((DEAD, DEAD), (DEAD, DEAD), (Level.FAIL, Level.WARN)),
    ],
)
def test_dead_servers(
    tcp: tuple[Answer, ...], udp: tuple[Answer, ...], levels: tuple[Level, Level]
) -> None:
    view = replace(HOME, tcp=tcp, udp=udp)
    if all(a.trouble for a in tcp):
        view = replace(view, ports=(), syns={}, nat=Nat())
    found = said(view)
    assert (found["STUN over TCP"].level, found["STUN over UDP"].level) == levels
    if DEAD in tcp:
        assert "dead.example:3478: no answer within 3 s" in found["STUN over TCP"].what
    assert ("NAT" in found) is (not view.ports)


def test_every_combination_has_words() -> None:
    for mapping, filtering, ports, bucket in itertools.product(
        Mapping, Filtering, (HOME.ports, UNPREDICTABLE.ports), (None, "b")
    ):
        view = replace(HOME, nat=Nat(mapping, filtering), ports=ports)
        assert len(said(view, Config(bucket=bucket))) == 7
