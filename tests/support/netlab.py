"""A small Internet in network namespaces: hosts, NATs, a core router, STUN and AWS services.

    host A ── NAT A ──┐                  ┌── NAT B ── host B
                      ├── core router ───┤
                      │                  └── services: coturn on two addresses, a local AWS API
    (double NAT: two boxes in a row)

Everything that a host sends to a service crosses its own NAT, as on the real Internet. Between two
sites the core can add delay and loss (`netlab_wire`). Needs root; nothing touches the machine's
own network namespace.

    with Lab() as lab:
        a = lab.attach(KINDS["lambda"])
        b = lab.attach(KINDS["ec2"])
        a.hosts[0].ns.popen(["python3", "…"])
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from tests.support.netlab_kinds import Kind, Nat
from tests.support.netlab_ns import LabError, Namespace, namespace, sweep, veth
from tests.support.netlab_rules import HOST_PORTS, Inside, ruleset
from tests.support.netlab_services import AWS_ADDRESS, STUN_ADDRESSES, Services
from tests.support.netlab_wire import Wire

#: 198.18.0.0/15 is the range for benchmarks (RFC 2544): .0 services, the others one per site.
SERVICES_NET = "198.18.0"
MAX_SITES = 100

__all__ = ["AWS_ADDRESS", "STUN_ADDRESSES", "Host", "Lab", "LabError", "Site"]


@dataclass(frozen=True)
class Host:
    """A machine of a site.

    Attributes:
        ns: where its processes run.
        address: its own address.
        public: the address under which the outside sees it.
    """

    ns: Namespace
    address: str
    public: str


@dataclass(frozen=True)
class Site:
    """Hosts and the boxes between them and the core, from the hosts outwards."""

    index: int
    kind: Kind
    hosts: tuple[Host, ...]
    boxes: tuple[Namespace, ...]

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Networks that the core routes to this site."""
        return (f"198.18.{self.index}.0/24", f"198.19.{self.index}.0/24")


class Lab:
    """The core router and what hangs on it. A context manager: at its end nothing is left.

    Args:
        services: whether STUN and the AWS API are started.
    """

    def __init__(self, *, services: bool = True) -> None:
        self._with_services = services
        self._stack = contextlib.ExitStack()
        self._free = set(range(1, MAX_SITES + 1))
        self._tables = itertools.count(1000)

    def __enter__(self) -> Lab:
        if os.geteuid() != 0:
            raise LabError("network namespaces need root\n  next: run it with sudo, or in a VM")
        sweep()
        with contextlib.ExitStack() as stack:
            self.core = stack.enter_context(namespace("core"))
            # A router that sent redirects would tell a NAT's hosts of a way around it.
            self.core.sysctl(
                ip_forward=1, conf__all__send_redirects=0, conf__default__send_redirects=0
            )
            self.services: Services | None = None
            if self._with_services:
                home = stack.enter_context(namespace("services"))
                veth(self.core, "services", home, "eth0")
                self.core.ip(f"addr add {SERVICES_NET}.1/24 dev services")
                home.ip(
                    *(f"addr add {a}/24 dev eth0" for a in (*STUN_ADDRESSES, AWS_ADDRESS)),
                    f"route add default via {SERVICES_NET}.1",
                )
                self.services = stack.enter_context(Services(home))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def site(self, kind: Kind, hosts: int = 1) -> Iterator[Site]:
        """A site for the length of a `with` block."""
        index = self._free.pop()
        with contextlib.ExitStack() as stack:
            stack.callback(self._free.add, index)
            boxes = tuple(stack.enter_context(namespace(f"nat{index}")) for _ in kind.layers)
            machines = [stack.enter_context(namespace(f"host{index}")) for _ in range(hosts)]
            stack.callback(self._unplug, index)
            yield self._build(index, kind, boxes, machines)

    def attach(self, kind: Kind, hosts: int = 1) -> Site:
        """A site that stays until the lab ends."""
        return self._stack.enter_context(self.site(kind, hosts))

    @contextlib.contextmanager
    def wire(self, a: Site, b: Site, *, rtt: float = 0.0, loss: float = 0.0) -> Iterator[None]:
        """Delay and loss between two sites, in both directions.

        Args:
            rtt: round trip in seconds; half of it is added to each direction.
            loss: share of packets lost in each direction, 0 to 1.
        """
        if not rtt and not loss:
            yield  # plain kernel forwarding
            return
        table = next(self._tables)
        with Wire(self.core, f"wire{table}", delay=rtt / 2, loss=loss) as wire:
            self.core.ip(f"route add default dev {wire.device} table {table}")
            rules = [
                f"from all iif {_port(x)} to {prefix} lookup {table}"
                for x, y in ((a, b), (b, a))
                for prefix in y.prefixes
            ]
            self.core.ip(*(f"rule add {rule}" for rule in rules))
            try:
                yield
            finally:
                self.core.ip(*(f"rule del {rule}" for rule in rules))

    def _unplug(self, index: int) -> None:
        # Its other end may be gone with the site's namespace already, and the cable with it.
        with contextlib.suppress(LabError):
            self.core.ip(f"link del site{index}")

    def _build(
        self, index: int, kind: Kind, boxes: tuple[Namespace, ...], machines: list[Namespace]
    ) -> Site:
        translated = any(nat.translates for nat in kind.layers)
        # Without translation the hosts' own network is a public one.
        lan = (kind.lan or f"10.{index}.0") if translated else f"198.19.{index}"
        first = kind.layers[0]
        inner = boxes[0]
        addresses = [f"{lan}.{10 + i}" for i in range(len(machines))]
        _join_lan(inner, first, lan, list(zip(machines, addresses, strict=True)))

        inside = addresses
        for depth, (nat, box) in enumerate(zip(kind.layers, boxes, strict=True)):
            outermost = depth == len(boxes) - 1
            wan = f"198.18.{index}" if outermost else f"100.64.{index}"
            public = [
                f"{wan}.{2 + (i if nat.address_each else 0)}" if nat.translates else address
                for i, address in enumerate(inside)
            ]
            if outermost:
                veth(self.core, f"site{index}", box, "wan")
                self.core.ip(f"addr add {wan}.1/24 dev site{index}")
                if not translated:
                    self.core.ip(f"route add {lan}.0/24 via {wan}.2")
            else:
                veth(boxes[depth + 1], "lan0", box, "wan")
                boxes[depth + 1].ip(f"addr add {wan}.1/24 dev lan0")
            _configure_box(
                box, nat, wan, sorted({f"{wan}.2", *(p for p in public if nat.translates)})
            )
            if nat.hairpin:
                legs = len(machines) if nat.isolated and depth == 0 else 1
                _send_own_traffic_out(box, wan, [f"lan{i}" for i in range(legs)])
            box.nft(
                ruleset(
                    nat,
                    [Inside(*pair) for pair in zip(inside, public, strict=True)],
                    STUN_ADDRESSES,
                )
            )
            inside = list(dict.fromkeys(public)) if nat.translates else inside
        outer = inside if len(inside) == len(machines) else inside * len(machines)
        hosts = tuple(
            Host(ns, address, seen)
            for ns, address, seen in zip(machines, addresses, outer, strict=True)
        )
        return Site(index, kind, hosts, boxes)


def _port(site: Site) -> str:
    """The core's interface towards a site."""
    return f"site{site.index}"


def _join_lan(box: Namespace, nat: Nat, lan: str, machines: list[tuple[Namespace, str]]) -> None:
    """Cables from the innermost box to its hosts: a bridge, or one network for each host."""
    if not nat.isolated:
        box.ip("link add lan0 type bridge", "link set lan0 up", f"addr add {lan}.1/24 dev lan0")
    for i, (host, address) in enumerate(machines):
        if nat.isolated:
            veth(box, f"lan{i}", host, "eth0")
            # Every host alone on a /32: a neighbour is reachable only through the box.
            box.ip(f"addr add {lan}.1/32 dev lan{i}", f"route add {address}/32 dev lan{i}")
            host.ip(
                f"addr add {address}/32 dev eth0",
                f"route add {lan}.1/32 dev eth0",
                f"route add default via {lan}.1",
            )
        else:
            veth(box, f"leg{i}", host, "eth0")
            box.ip(f"link set leg{i} master lan0")
            host.ip(f"addr add {address}/24 dev eth0", f"route add default via {lan}.1")
        host.sysctl(ip_local_port_range=f"{HOST_PORTS[0]} {HOST_PORTS[1]}")


def _configure_box(box: Namespace, nat: Nat, wan: str, addresses: list[str]) -> None:
    conntrack = {"nf_conntrack_acct": 1}  # for rules that count a connection's bytes
    if nat.forgets:
        conntrack |= {"nf_conntrack_tcp_timeout_established": nat.forgets}
        conntrack |= {"nf_conntrack_tcp_loose": 0}
    box.run(["sysctl", "-q", "-w", *(f"net.netfilter.{k}={v}" for k, v in conntrack.items())])
    box.sysctl(
        ip_forward=1,
        conf__all__send_redirects=0,
        conf__default__send_redirects=0,
        conf__wan__accept_local=1,
        conf__all__rp_filter=0,
        conf__wan__rp_filter=0,
    )
    box.ip(
        *(f"addr add {address}/24 dev wan" for address in addresses),
        f"route add default via {wan}.1",
    )


def _send_own_traffic_out(box: Namespace, wan: str, legs: list[str]) -> None:
    """What hosts inside send to the box's public addresses leaves it, and its router returns it.

    So traffic between two hosts of one NAT crosses conntrack twice, as it would with two NATs: a
    hairpin with the filtering that the kind says. The kernel would take such packets for its own:
    the rule that finds local addresses comes after ours.
    """
    box.ip(
        f"route add default via {wan}.1 dev wan table 100",
        *(f"rule add pref 10 iif {leg} to {wan}.0/24 lookup 100" for leg in legs),
        "rule add pref 100 lookup local",
        "rule del pref 0",
    )
