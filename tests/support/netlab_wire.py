"""Delay and loss between two sites: a router in user space on a TUN device.

For kernels without `netem`. The core's policy routing sends the packets of a pair of sites into the
TUN device; this program holds each one back for its delay, drops the share that is to be lost, and
writes the rest back, whence the kernel routes them on. The detour costs one hop more, which is
given back, so that a packet's TTL does not tell the difference: low-TTL SYNs depend on it.
"""

from __future__ import annotations

import argparse
import collections
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time
from types import TracebackType

from tests.support.netlab_ns import LabError, Namespace

_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_QUEUE = 4096
_MTU = 65535


class Wire:
    """Runs the router in a namespace for the length of a `with` block.

    Args:
        ns: the core.
        device: name for the TUN device.
        delay: seconds, one way.
        loss: share of packets lost, 0 to 1.
    """

    def __init__(self, ns: Namespace, device: str, *, delay: float, loss: float) -> None:
        self._ns = ns
        self.device = device
        self._arguments = [f"--delay={delay}", f"--loss={loss}"]

    def __enter__(self) -> Wire:
        self._process = self._ns.popen(
            [sys.executable, "-m", __name__, self.device, *self._arguments],
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise LabError(f"the delay router for {self.device} did not start")
        self._ns.ip(f"link set {self.device} up txqueuelen {_QUEUE}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()


def restore_hop(packet: bytearray) -> None:
    """Adds one to the TTL and corrects the header checksum (RFC 1624)."""
    packet[8] += 1
    checksum = struct.unpack_from("!H", packet, 10)[0]
    total = (~checksum & 0xFFFF) + 0x0100
    total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", packet, 10, ~total & 0xFFFF)


def route(fd: int, delay: float, loss: float, chance: random.Random) -> None:
    """Moves packets until the device goes away."""
    # One delay for all: first in, first out.
    held: collections.deque[tuple[float, bytearray]] = collections.deque()
    while True:
        wait = max(0.0, held[0][0] - time.monotonic()) if held else None
        readable, _, _ = select.select([fd], [], [], wait)
        if readable:
            due = time.monotonic() + delay
            # Only what is there now, in bounded portions: packets that are due must not wait.
            for _ in range(64):
                try:
                    packet = bytearray(os.read(fd, _MTU))
                except BlockingIOError:
                    break
                if packet[0] >> 4 == 4 and chance.random() >= loss:
                    restore_hop(packet)
                    held.append((due, packet))
        now = time.monotonic()
        while held and held[0][0] <= now:
            os.write(fd, held.popleft()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device")
    parser.add_argument("--delay", type=float, required=True)
    parser.add_argument("--loss", type=float, required=True)
    parser.add_argument("--seed", type=int)
    arguments = parser.parse_args()
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH14x", arguments.device.encode(), _IFF_TUN_NO_PI))
    print("ready", flush=True)
    route(fd, arguments.delay, arguments.loss, random.Random(arguments.seed))


if __name__ == "__main__":
    main()
