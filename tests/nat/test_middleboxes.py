"""What lies on some paths and is no NAT: a connection comes about all the same, or fails soon."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.nat.cell import TIME_FACTOR, run
from tests.nat.expected import Cell
from tests.support.netlab import Lab
from tests.support.netlab_kinds import KINDS, MIDDLEBOXES

pytestmark = pytest.mark.nat

FORGETS = MIDDLEBOXES["forgets"].layers[0].forgets


@pytest.mark.parametrize("other", ["lambda", "ec2-open"])
def test_low_ttl_syns_are_eaten(lab: Lab, other: str) -> None:
    """Nothing can be held there; in the end the race, or a listener, does it."""
    cell = Cell(MIDDLEBOXES["eats-low-ttl"], KINDS[other], "p")
    outcome = run(lab, cell)
    assert outcome.delivered and outcome.route == "punched", outcome.explain()


def test_both_eat_them(lab: Lab) -> None:
    cell = Cell(MIDDLEBOXES["eats-low-ttl"], MIDDLEBOXES["eats-low-ttl"], "p")
    outcome = run(lab, cell)
    assert outcome.delivered and outcome.route == "punched", outcome.explain()


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True], ids=["at-the-sender", "at-the-receiver"])
def test_a_path_that_swallows_a_connection(lab: Lab, reverse: bool) -> None:
    """Both ends fail within 30 s of the last byte that came, and say why."""
    ends = (MIDDLEBOXES["swallows"], KINDS["lambda"])
    outcome = run(lab, Cell(*(ends[::-1] if reverse else ends), "p"), patience=90.0 * TIME_FACTOR)
    assert not outcome.delivered
    for end in outcome.ends:
        assert end.returncode == 6, outcome.explain()
        assert end.connected is not None
        ended_at = end.lines[-1][0]
        assert ended_at - end.connected[0] < 30 * TIME_FACTOR, outcome.explain()
        text = "\n".join(line for _, line in end.lines)
        assert re.search("dead or unreachable: no acknowledgement for 15 s", text), text
        assert "Traceback" not in text


_IDLE = """
import socket, sys, time
if sys.argv[1] == "serve":
    listener = socket.create_server(("0.0.0.0", 21000))
    print(flush=True)
    connection, _ = listener.accept()
    connection.recv(1)
    time.sleep(600)
connection = socket.create_connection((sys.argv[1], 21000), timeout=60)
connection.sendall(b"1")
time.sleep(float(sys.argv[2]))
connection.sendall(b"2")
try:
    connection.recv(1)
except ConnectionResetError:
    sys.exit(9)
"""


@pytest.mark.slow
def test_a_nat_that_forgets(lab: Lab) -> None:
    """It resets who was idle, and a stream that stands still is not idle for it."""
    with lab.site(MIDDLEBOXES["forgets"]) as site, lab.site(KINDS["open"]) as outside:
        python = [sys.executable, "-c", _IDLE]
        server = outside.hosts[0].ns.popen([*python, "serve"], stdout=subprocess.PIPE)
        assert server.stdout is not None
        server.stdout.readline()
        address = outside.hosts[0].address
        client = site.hosts[0].ns.popen([*python, address, str(FORGETS * 1.5)])
        assert client.wait(60 * TIME_FACTOR) == 9
        server.kill()
        server.wait()
        server.stdout.close()
    cell = Cell(MIDDLEBOXES["forgets"], MIDDLEBOXES["forgets"], "p")
    outcome = run(lab, cell, pause=FORGETS * 2.5)
    assert outcome.delivered and outcome.route == "punched", outcome.explain()
