"""The network plan of the emulation (.env), and the check that it overlaps nothing of this machine.

Docker makes a bridge that overlaps an existing route without a word, and the machine then loses
that network.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

NAMES = ("PUNCH_WAN_EC2", "PUNCH_WAN_LAMBDA", "PUNCH_CORE", "PUNCH_VPC", "PUNCH_LAMBDA")
ROUTES = Path("/proc/net/route")


@dataclass(frozen=True)
class Route:
    """One IPv4 route of this machine."""

    network: IPv4Network
    gateway: str
    interface: str

    def __str__(self) -> str:
        via = "" if self.gateway == "0.0.0.0" else f" via {self.gateway}"
        return f"{self.network}{via} dev {self.interface}"


def read(file: Path, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The plan: the first three numbers of each network, by name; the environment wins."""
    lines = (line.strip() for line in file.read_text().splitlines())
    values = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    values.update({name: environment[name] for name in NAMES if name in environment})
    return {name: values[name] for name in NAMES}


def check(plan: Mapping[str, str], own: Set[str] = frozenset()) -> None:
    """Refuses a plan that cannot work.

    Args:
        plan: as `read` gives it.
        own: interfaces of the emulation itself, whose routes do not count.

    Raises:
        SystemExit: a network is no network, or overlaps another one or a route of this machine.
    """
    networks: dict[str, IPv4Network] = {}
    for name, prefix in plan.items():
        try:
            network = IPv4Network(f"{prefix}.0/24")
        except ValueError:
            raise SystemExit(
                f"{name}={prefix} is not the first three numbers of an IPv4 network\n"
                f"  next: for instance {name}=198.51.100"
            ) from None
        for other, taken in networks.items():
            if network == taken:
                raise SystemExit(f"{name} and {other} are both {network}; choose another")
        networks[name] = network
    routes = [route for route in machine_routes() if route.interface not in own]
    for name, network in networks.items():
        for route in routes:
            if network.overlaps(route.network):
                raise SystemExit(
                    f"{name}={plan[name]} would overlap this machine's route {route}\n"
                    f"  next: set {name} to a free /24, in .env or in the environment"
                )


def machine_routes(file: Path = ROUTES) -> Iterator[Route]:
    """The IPv4 routes but the default one. Elsewhere than on Linux, Docker has a machine of its own
    whose routes cannot be seen: there are none.
    """
    if not file.exists():
        return
    for line in file.read_text().splitlines()[1:]:
        interface, target, gateway, *_, mask, _mtu, _window, _irtt = line.split()
        if mask == "00000000":
            continue
        yield Route(IPv4Network(f"{_dotted(target)}/{_dotted(mask)}"), _dotted(gateway), interface)


def _dotted(field: str) -> str:
    return socket.inet_ntoa(struct.pack("<I", int(field, 16)))
