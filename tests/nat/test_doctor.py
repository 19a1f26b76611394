"""`punch doctor` names each kind of NAT; `punch ping` goes through them by the route it must."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.nat.cell import TIME_FACTOR, environment
from tests.support.netlab import Lab
from tests.support.netlab_kinds import KINDS, MIDDLEBOXES, Kind
from tests.support.tiers import quick

pytestmark = pytest.mark.nat

PUNCH = [sys.executable, "-m", "punchlib.cli.main"]
PATIENCE = 60.0 * TIME_FACTOR

OWN, ONE_PORT = "there is no NAT", "one port for all destinations"
EACH = "each destination gets its own port"
ANYBODY, ONLY = "lets anybody in", "lets in only whom we have sent to"
#: Kind → the level of its mapping, and words of mapping, filtering, port and RFC 3489.
SAID: dict[str, tuple[str, str, str, str, str]] = {
    "lambda": ("ok", ONE_PORT, ONLY, "kept, 4 of 4", "port restricted cone"),
    "aws-nat-gateway": ("warn", EACH, ONLY, "not kept, 0 of 4", "symmetric"),
    "open": ("ok", OWN, ANYBODY, "our own", "open Internet"),
    "ec2-open": ("ok", ONE_PORT, ANYBODY, "kept, 4 of 4", "full cone"),
    "adm-eif": ("ok", EACH, ANYBODY, "not kept, 0 of 4", "full cone"),
    "fw-drop": ("ok", OWN, ONLY, "our own", "symmetric UDP firewall"),
    "eim-random": ("ok", ONE_PORT, ONLY, "not kept, 0 of 4", "port restricted cone"),
    "eim-eif-random": ("ok", ONE_PORT, ANYBODY, "not kept, 0 of 4", "full cone"),
    "adm": ("warn", EACH, ONLY, "not kept, 0 of 4", "symmetric"),
    "double": ("ok", ONE_PORT, ONLY, "kept, 4 of 4", "port restricted cone"),
    "double-apdm": ("warn", EACH, ONLY, "not kept, 0 of 4", "symmetric"),
}


def doctor(lab: Lab, kind: Kind, **env: str) -> dict[str, dict[str, str]]:
    with lab.site(kind) as site, tempfile.TemporaryDirectory(prefix="plab-") as folder:
        around = {**environment(kind, Path(folder), PATIENCE), **env}
        host = site.hosts[0]
        command = [*PUNCH, "doctor", "--here", "--json"]
        process = host.ns.popen(command, env=around, stdout=subprocess.PIPE)
        text, _ = process.communicate(timeout=PATIENCE)
        found = {f["name"]: f for f in json.loads(text)["places"]["here"]}
        assert host.public in found["public address"]["what"]
        return found


@pytest.mark.parametrize("name", quick(list(SAID), 4))
def test_a_nat_in_words(name: str, lab: Lab) -> None:
    level, mapping, filtering, port, classic = SAID[name]
    found = doctor(lab, KINDS[name])
    assert (found["mapping"]["level"], found["filtering"]["level"]) == (level, "ok")
    for check, words in (("mapping", mapping), ("filtering", filtering), ("port", port)):
        assert words in found[check]["what"], found[check]
    assert f"calls this NAT {classic}" in found["STUN over UDP"]["what"]
    assert found["low-TTL SYNs"]["level"] == "ok"
    assert "TTL 2" in found["low-TTL SYNs"]["what"]
    assert "died on the way" in found["low-TTL SYNs"]["what"]


def test_unpredictable_ports_without_s3(lab: Lab) -> None:
    found = doctor(lab, KINDS["aws-nat-gateway"], AWS_BUCKET="")
    assert found["mapping"]["level"] == "fail"
    assert "there is no S3 route" in found["mapping"]["what"]


def test_low_ttl_syns_are_eaten(lab: Lab) -> None:
    found = doctor(lab, MIDDLEBOXES["eats-low-ttl"])
    assert found["low-TTL SYNs"]["level"] == "warn"
    assert "eats them" in found["low-TTL SYNs"]["what"]
    assert found["mapping"]["level"] == "ok"


@pytest.mark.parametrize(
    "pair",
    quick(
        [
            ("lambda", "ec2", "punched", 0),
            ("aws-nat-gateway", "lambda", "s3", 1),
            ("double-rst", "eim-icmp", "punched", 0),
            ("apdm-random", "ec2-open", "punched", 0),
        ],
        2,
    ),
)
def test_a_ping_through_two_nats(pair: tuple[str, str, str, int], lab: Lab) -> None:
    a, b, route, status = pair
    reports: list[dict[str, Any]] = []
    with (
        lab.site(KINDS[a]) as here,
        lab.site(KINDS[b]) as there,
        lab.wire(here, there, rtt=0.02),
        tempfile.TemporaryDirectory(prefix="plab-") as folder,
    ):
        ends = [
            site.hosts[0].ns.popen(
                [*PUNCH, "ping", f"{a} {b}", "--count", "2", "--json"],
                env=environment(site.kind, Path(folder), PATIENCE),
                stdout=subprocess.PIPE,
            )
            for site in (here, there)
        ]
        for end in ends:
            text, _ = end.communicate(timeout=2 * PATIENCE)
            reports.append(json.loads(text))
            assert end.returncode == status, text
    for report in reports:
        assert [x["route"] for x in report["attempts"]] == [route] * 2
        assert all(x["rtt_ms"] > 20 and x["bytes_per_s"] > 0 for x in report["attempts"])
    one, other = (x["attempts"][0] for x in reports)
    assert one["bytes_per_s"] == other["bytes_per_s"]
