"""What a worker and an EC2 handler answer to probes, in the embedded cloud; and who cannot."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import punchlib
from punchlib.config import Config
from punchlib.doctor.finding import Finding, Level, looked_at, ok
from punchlib.doctor.ping import Attempt, Pinger
from punchlib.errors import PunchError
from punchlib.jobs.launch import Ec2Launcher, NodeLost, read_probe
from punchlib.jobs.placement import Place
from punchlib.local.cloud import LocalCloud
from punchlib.node import probe as probes
from punchlib.node import sandbox, scratch
from punchlib.node.probe_event import Probe

PLACES: tuple[Place, ...] = ("lambda", "ec2")


@pytest.mark.parametrize("place", PLACES)
def test_a_node_says_how_it_is(place: Place, cloud: LocalCloud) -> None:
    said = probes.read(cloud.probed[place].probe(Probe("doctor")))
    assert (said["probe"], said["version"]) == ("doctor", punchlib.__version__)
    found: dict[str, Finding] = {f.name: f for f in said["findings"]}
    assert {"memory", "engine", "STUN over TCP", "mapping", "bucket", "table"} <= set(found)
    assert "function" not in found  # a node needs none
    assert "it serves" in found["engine"].what
    assert found["bucket"].level is Level.OK
    assert ("not needed" in found["namespaces"].what) is (place == "lambda")
    assert found["leftovers"].level is Level.OK, found["leftovers"]


@pytest.mark.parametrize("place", PLACES)
def test_a_node_is_pinged(place: Place, cloud: LocalCloud) -> None:
    probe = Probe("ping", "some key", "job-1", "ab" * 32, 5)
    config = replace(Config.from_env(), job_id="job-1", job_key=bytes.fromhex("ab" * 32))
    called = probes.aside(lambda: cloud.probed[place].probe(probe))
    here = asyncio.run(Pinger("some key", True, config, lambda n, route: n < 2).run())
    there = [Attempt(**a) for a in probes.read(called.result(60))["attempts"]]
    assert [(a.route, a.error) for a in (*here, *there)] == [("host", "")] * 4
    assert [(a.local, a.remote) for a in here] == [(a.remote, a.local) for a in there]


@pytest.mark.parametrize("place", PLACES)
def test_a_probe_that_is_not_known(place: Place, cloud: LocalCloud) -> None:
    with pytest.raises(NodeLost, match="knows no probe 'fly'") as caught:
        cloud.probed[place].probe(Probe("fly"))
    assert caught.value.next_step


@pytest.fixture
def old_handler() -> Iterator[str]:
    """An EC2 handler of a release without probes: every event must name scripts."""
    listener = socket.create_server(("127.0.0.1", 0))
    error = "the event needs `ids` and `folder_ids`: lists of names of the same length"

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(json.dumps({"v": 1, "ok": False, "error": error}).encode() + b"\n")

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    thread.join()
    listener.close()


def test_an_old_node_is_named(old_handler: str) -> None:
    with pytest.raises(NodeLost, match="knows no probes: its punchlib is older") as caught:
        Ec2Launcher(old_handler).probe(Probe("doctor"))
    assert caught.value.next_step == "deploy this release there"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            {"errorType": "UsageError", "errorMessage": "the event needs `ids` and `folder_ids`"},
            "knows no probes",
        ),
        ({"errorType": "KeyError", "errorMessage": "'ids'"}, "knows no probes"),  # PaSh's own
        ({"errorType": "Runtime.ExitError", "errorMessage": "signal: killed"}, "its process died"),
        (1, "none of ours"),
        ({"v": 1, "ok": True}, "did not answer the probe"),
    ],
)
def test_functions_that_answer_something_else(answer: object, message: str) -> None:
    with pytest.raises(NodeLost, match=message) as caught:
        read_probe(json.dumps(answer).encode())
    assert caught.value.next_step


def test_an_answer_of_another_form() -> None:
    with pytest.raises(PunchError, match="none to a probe"):
        probes.read({"probe": "doctor", "version": "9", "findings": [{"name": "x"}]})


def test_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert probes.leftovers().what == f"none in {tmp_path}"
    with scratch.folder("punch-ec2"):
        assert probes.leftovers().level is Level.OK
        killed = scratch.name("punch-local")
        killed.mkdir(mode=0o700)
        found = probes.leftovers()
    assert found.level is Level.WARN
    assert killed.name in found.what
    assert killed.exists()  # a look takes nothing away


def test_namespaces_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "a /tmp and processes of their own" in probes.namespaces(Config()).what or (
        sandbox.refusal() is not None
    )
    monkeypatch.setattr(sandbox, "refusal", lambda: "sandbox: this machine refuses namespaces")
    found = probes.namespaces(Config())
    assert found.level is Level.WARN
    assert "refuses namespaces" in found.what
    assert probes.namespaces(Config(on_lambda=True)).level is Level.OK


def test_a_look_that_fails_takes_no_other_with_it() -> None:
    def broken() -> Finding:
        raise ZeroDivisionError("x")

    found = looked_at("memory", broken)
    assert (found.name, found.level) == ("memory", Level.WARN)
    assert "ZeroDivisionError" in found.what
    assert looked_at("memory", lambda: ok("memory", "well")).level is Level.OK
