"""A process in a host's namespace that does on request what a test wants done there.

It lives as long as its host, so that no trial pays for the start of an interpreter.
"""

from __future__ import annotations

import errno
import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.support import reference_punch as punch
from tests.support.netlab import Host
from tests.support.netlab_program import Program

_GRACE = 5.0


class Agent(Program):
    """The test's end."""

    def __init__(self, host: Host) -> None:
        super().__init__(host, __name__)


class _Actions:
    """What an agent can do; the names are those of the requests."""

    def __init__(self) -> None:
        self._kept: list[socket.socket] = []

    def map(self, servers: list[list[Any]], udp: bool = False, port: int = 0) -> dict[str, Any]:
        """Mapped addresses of one port, as several servers see it; the mappings are kept."""
        port = port or punch.free_port()
        seen = []
        for host, number in servers:
            kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
            address, sock = punch.mapped(port, (host, number), kind)
            seen.append(address)
            self._kept.append(sock)
        return {"port": port, "mapped": seen}

    def connect(
        self, technique: str, port: int, remote: list[Any], at: float, seconds: float
    ) -> dict[str, Any]:
        """Connects from `port` at a given monotonic time and sends a token both ways."""
        time.sleep(max(0.0, at - time.monotonic()))
        until = time.monotonic() + seconds
        try:
            sock = punch.TECHNIQUES[technique](port, (remote[0], remote[1]), until)
        except punch.Refused as refused:
            return {"ok": False, "why": str(refused)}
        done = time.monotonic()
        with sock:
            ok = punch.exchange(sock, max(_GRACE, until - done))
        return {"ok": ok, "at": done, "why": "" if ok else "no token came"}

    def listen(self, port: int) -> dict[str, Any]:
        """Takes and closes every connection that reaches a port."""
        sock = punch.punching_socket(port)
        sock.setblocking(True)
        sock.listen()

        def accept() -> None:
            while True:
                connection, _ = sock.accept()
                connection.close()

        threading.Thread(target=accept, daemon=True).start()
        return {}

    def knock(self, remote: list[Any], seconds: float, port: int = 0) -> dict[str, Any]:
        """One connect, as a stranger: "open", "silence", "rst" or "icmp"."""
        before = _unreachables()
        started = time.monotonic()
        try:
            sock = punch.one_connect(port, (remote[0], remote[1]), started + seconds)
        except punch.Refused as refused:
            took = time.monotonic() - started
            if refused.code == errno.ETIMEDOUT:
                return {"answer": "silence", "took": took}
            return {"answer": "icmp" if _unreachables() > before else "rst", "took": took}
        sock.close()
        return {"answer": "open", "took": time.monotonic() - started}

    def forget(self) -> dict[str, Any]:
        """Lets go of the mappings."""
        for sock in self._kept:
            sock.close()
        self._kept.clear()
        return {}


def _unreachables() -> int:
    """ICMP "destination unreachable" messages that this namespace has received."""
    names, values = (
        line.split()[1:]
        for line in Path("/proc/self/net/snmp").read_text().splitlines()
        if line.startswith("Icmp:")
    )
    return int(values[names.index("InDestUnreachs")])


def main() -> None:
    actions = _Actions()
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(actions, request.pop("do"))(**request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
