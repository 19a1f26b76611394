"""One stream through the two NATs of the emulation, beside a bare splice chain through the same.

    python -m bench.nat [--gib 8] [--rounds 3] [--streams 0] [--json FILE]

Of the emulation only the NATs and the router are started, and behind each NAT a container that
sleeps. Both ends are programs of this machine in those containers' network namespaces; they dial
each other, as `bench/stream.py --meet` says. At the end all of it is removed. Needs root and
Docker.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from docker.errors import NotFound

from bench import stream
from services import build, network_plan
from services.emulation import PROJECT, ROOT, Emulation, compose_command

BOXES = ("router", "nat-ec2", "nat-lambda")
#: Who sends and who receives: the network, and the one in which the outside sees it.
NETWORKS = {"PUNCH_VPC": "PUNCH_WAN_EC2", "PUNCH_LAMBDA": "PUNCH_WAN_LAMBDA"}

#: An end that outlived us would wait for ever in a network that is gone.
ENTER = "setpriv --pdeathsig KILL nsenter --net"


class Hosts:
    """A sleeping container in each private network, to have somewhere to stand."""

    def __init__(self, emulation: Emulation) -> None:
        self.emulation = emulation
        self._client = build.connect()
        self._names = {network: f"{PROJECT}-bench-{network}" for network in NETWORKS}

    def start(self) -> list[tuple[int, str]]:
        """For each network the container's process and its address as the outside sees it."""
        hosts = []
        for network, outside in NETWORKS.items():
            name = network.lower().replace("_", "-")
            container = self._client.containers.run(
                build.tag("nat"),
                ["infinity"],
                entrypoint="sleep",
                name=self._names[network],
                network=name,
                cap_drop=["ALL"],
                detach=True,
            )
            container.reload()
            address = container.attrs["NetworkSettings"]["Networks"][name]["IPAddress"]
            public = f"{self.emulation.plan[outside]}.{address.rpartition('.')[2]}"
            hosts.append((container.attrs["State"]["Pid"], public))
        return hosts

    def remove(self) -> None:
        for name in self._names.values():
            with contextlib.suppress(NotFound):
                self._client.containers.get(name).remove(force=True)

    def refuse_if_up(self) -> None:
        """The emulation as a whole may be at work for somebody."""
        labels = [f"com.docker.compose.{k}" for k in (f"project={PROJECT}", "service=aws")]
        if self._client.containers.list(all=True, filters={"label": labels}):
            raise SystemExit("the emulation is up, and would be measured too\n  next: make down")


@contextlib.contextmanager
def network() -> Iterator[tuple[Emulation, list[tuple[int, str]]]]:
    """The NATs with a host behind each, for the length of a `with` block."""
    emulation = Emulation()
    hosts = Hosts(emulation)
    hosts.refuse_if_up()

    def remove() -> None:
        hosts.remove()
        emulation.down()

    remove()  # what a run that was killed has left
    network_plan.check(emulation.plan)
    build.make(["router", "nat"])
    try:
        up = [*compose_command(), "up", "--detach", "--wait", *BOXES]
        done = subprocess.run(up, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{done.stderr}\n{' '.join(up)} failed ({done.returncode})")
        yield emulation, hosts.start()
    finally:
        remove()


def _stop(number: int, frame: FrameType | None) -> None:
    # SystemExit runs the clean-up; the default action would leave it all behind.
    raise SystemExit(128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gib", type=float, default=8.0, help="payload of one run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=0, help="width of a second table; 0: none")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("entering a container's network needs root\n  next: run it with sudo")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    with network() as (emulation, hosts):
        (sender, sender_address), (receiver, receiver_address) = hosts
        stream.main(
            [
                f"--send-prefix={ENTER} --target {sender}",
                f"--recv-prefix={ENTER} --target {receiver}",
                f"--meet={sender_address},{receiver_address}",
                *(f"--{name}={getattr(args, name)}" for name in ("gib", "rounds", "streams")),
                *([f"--json={args.json}"] if args.json else []),
            ]
        )
        crossed = sum(
            c.bytes
            for c in emulation.crossed("router")
            if (c.source, c.target) == (sender_address, receiver_address)
        )
        print(f"\n{crossed / (1 << 30):.1f} GiB went through both NATs and the router between them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
