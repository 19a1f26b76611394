"""The lab is what it says: every kind's mapping, filtering and answers, measured from outside."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.netlab import STUN_ADDRESSES, Host, Lab
from tests.support.netlab_agent import Agent
from tests.support.netlab_kinds import KINDS, SHARED, Filtering, Kind, Mapping, Nat, Ports
from tests.support.netlab_ns import PREFIX, RUN, sweep
from tests.support.netlab_rules import NAT_PORTS
from tests.support.netlab_services import STUN_ALTERNATE_PORT, STUN_PORT
from tests.support.netlab_wire import restore_hop
from tests.support.tiers import quick

pytestmark = pytest.mark.nat

#: Two addresses with two ports each, in this order: same address, then the other one.
SERVERS = [(a, p) for a in STUN_ADDRESSES for p in (STUN_PORT, STUN_ALTERNATE_PORT)]
SILENCE = 0.4  # seconds without an answer


def deciding(kind: Kind) -> Nat:
    """The box that decides over the mapping: the first one that is not transparent."""
    order = [Mapping.NONE, Mapping.EIM, Mapping.ADM, Mapping.APDM]
    return max(kind.layers, key=lambda nat: order.index(nat.mapping))


@pytest.mark.parametrize("kind", quick(KINDS.values(), 5), ids=KINDS)
def test_a_kind_is_what_it_says(lab: Lab, kind: Kind) -> None:
    with lab.site(kind) as site, lab.site(KINDS["open"]) as outside:
        agent, stranger = Agent(site.hosts[0]), Agent(outside.hosts[0])
        for udp in (False, True):
            # Twice, and all mappings stay alive.
            check_mapping(kind, [_mapped(agent, site.hosts[0], udp) for _ in range(2)])
        check_filtering(kind, agent, stranger)


def check_mapping(kind: Kind, seen: list[tuple[int, list[int]]]) -> None:
    nat = deciding(kind)
    for local, ports in seen:
        if nat.ports is Ports.PRESERVED:
            assert ports == [local] * 4
            continue
        assert all(NAT_PORTS[0] <= port <= NAT_PORTS[1] for port in ports)
        if nat.mapping is Mapping.EIM:
            assert len(set(ports)) == 1
        elif nat.mapping is Mapping.ADM:
            assert ports[0] == ports[1] != ports[2] == ports[3]
        elif nat.ports is Ports.SEQUENTIAL:
            assert ports == list(range(ports[0], ports[0] + 4))
        else:
            steps = {b - a for a, b in itertools.pairwise(ports)}
            assert 0 not in steps and len(steps) > 1


def check_filtering(kind: Kind, agent: Agent, stranger: Agent) -> None:
    seen = agent.ask(do="map", servers=SERVERS[:1])
    agent.ask(do="listen", port=seen["port"])
    mapped = seen["mapped"][0]
    answer = stranger.ask(do="knock", remote=mapped, seconds=SILENCE)["answer"]
    unmapped = [mapped[0], NAT_PORTS[1] + 1]
    elsewhere = stranger.ask(do="knock", remote=unmapped, seconds=SILENCE)["answer"]
    outermost = kind.layers[-1]
    refusal = {"drop": "silence"}.get(outermost.unsolicited, str(outermost.unsolicited))
    assert answer == ("open" if kind.open else refusal)
    # A port without a mapping is the box's own; a 1:1 address or a router leave that to the host.
    whole = outermost.filtering is Filtering.EIF and (outermost.static or not outermost.translates)
    assert elsewhere == ("rst" if whole else refusal)


def _mapped(agent: Agent, host: Host, udp: bool) -> tuple[int, list[int]]:
    """The local port and the four mapped ones."""
    seen = agent.ask(do="map", servers=SERVERS, udp=udp)
    assert {address for address, _ in seen["mapped"]} == {host.public}
    return seen["port"], [port for _, port in seen["mapped"]]


@pytest.mark.parametrize(
    ("name", "directly", "through_the_nat"),
    [
        ("same-lan", True, True),
        ("same-nat-hairpin", False, True),
        ("same-nat-no-hairpin", False, False),
        ("lambda-workers", False, True),
        ("same-aws-nat-gateway", False, False),
    ],
)
def test_two_hosts_behind_one_nat(
    lab: Lab, name: str, directly: bool, through_the_nat: bool
) -> None:
    with lab.site(SHARED[name], hosts=2) as site:
        a, b = (Agent(host) for host in site.hosts)
        b.ask(do="listen", port=21000)
        address = [site.hosts[1].address, 21000]
        knocked = a.ask(do="knock", remote=address, seconds=SILENCE)["answer"]
        assert (knocked == "open") is directly
        maps = [agent.ask(do="map", servers=SERVERS[:1]) for agent in (a, b)]
        at = time.monotonic() + 0.02
        for agent, mine, theirs in ((a, *maps), (b, *maps[::-1])):
            agent.send(
                do="connect",
                technique="one",
                port=mine["port"],
                remote=theirs["mapped"][0],
                at=at,
                seconds=1.5,
            )
        assert all(agent.answer()["ok"] for agent in (a, b)) is through_the_nat


@pytest.mark.slow
def test_delay_is_accurate_and_loss_is_what_was_asked(lab: Lab) -> None:
    with lab.site(KINDS["open"]) as a, lab.site(KINDS["open"]) as b:
        agent, target = Agent(a.hosts[0]), [b.hosts[0].address, 9]
        for rtt in (0.0, 0.02, 0.2):
            with lab.wire(a, b, rtt=rtt):
                times = sorted(
                    agent.ask(do="knock", remote=target, seconds=5)["took"] for _ in range(15)
                )
            # The lower quartile: a busy machine delays some, and that is not the wire's doing.
            assert rtt <= times[len(times) // 4] < rtt + 0.005
        with lab.wire(a, b, rtt=0.002, loss=0.05):
            knocks = [
                agent.ask(do="knock", remote=target, seconds=0.2)["answer"] for _ in range(100)
            ]
        # 1 - 0.95² = 9.75 % of the round trips; the upper bound is four standard deviations away.
        assert 1 <= knocks.count("silence") <= 24


def test_the_delay_router_gives_the_hop_back() -> None:
    # RFC 1071 over the corrected header must be zero again.
    header = bytearray.fromhex("4500003c1c4640004006b1e6ac100a63ac100a0c")
    restore_hop(header)
    assert header[8] == 0x41
    total = sum(int.from_bytes(header[i : i + 2], "big") for i in range(0, 20, 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_lab_that_was_killed_leaves_nothing(lab: Lab, number: signal.Signals) -> None:
    code = (
        "import time\n"
        "from tests.support.netlab import Lab\n"
        "from tests.support.netlab_kinds import KINDS\n"
        "lab = Lab().__enter__(); lab.attach(KINDS['double']); print(flush=True); time.sleep(60)\n"
    )
    victim = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert victim.stdout is not None
    victim.stdout.readline()
    mine = f"{PREFIX}-{victim.pid}-"
    left = [path.name for path in RUN.iterdir() if path.name.startswith(mine)]
    assert len(left) == 5  # core, services, two boxes, a host
    victim.send_signal(number)
    victim.wait()
    victim.stdout.close()
    assert set(left) <= set(sweep())
    assert not [path for path in RUN.iterdir() if path.name.startswith(mine)]
    # Ours is alive: the sweep has left it alone.
    assert [path for path in RUN.iterdir() if path.name.startswith(f"{PREFIX}-{os.getpid()}-")]
