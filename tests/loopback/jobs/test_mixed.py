"""A whole job on two machines, one with the old (v1) program, one with ours (docs/migrating.md)."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.jobs.launch import Ec2Launcher
from punchlib.jobs.smoke_test import INPUT, OUTPUT
from punchlib.local.cloud import LocalCloud
from punchlib.node.protocol import Event, Result, Task
from punchlib.runtime.layout import write_pashlib
from tests.support.jobtools import wait_until

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "sort-width2"
ENDS, WORKERS = ("splitter", "merger"), ("worker1", "worker2")
_KEY = re.compile(r"(?:send|recv)\*([^*]+)\*")


class Machine:
    """An EC2 handler whose scripts find one of the two programs at /opt/pashlib."""

    def __init__(self, folder: Path, *, old: bool) -> None:
        folder.mkdir()
        pashlib, self.log = folder / "pashlib", folder / "log"
        if old:
            program = f"env PYTHONPATH={ROOT} {sys.executable} -P -m tests.support.old_peer ec2"
            pashlib.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
            pashlib.chmod(0o755)
        else:
            write_pashlib(pashlib)
        self.socket = folder / "door"
        command = [sys.executable, "-m", "punchlib.cli.main", "ec2-handler"]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [*command, "--unix", self.socket, "--pashlib", pashlib], stderr=out
            )

    def wait(self) -> None:
        """Until it serves."""
        wait_until(lambda: b"listening" in self.log.read_bytes(), 240)

    def registered(self) -> int:
        """How many connections of its scripts are in the table."""
        return self.log.read_bytes().count(b"Get local_addr")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


@pytest.fixture
def scripts(cloud: LocalCloud) -> Iterator[tuple[str, bytes]]:
    """The example's scripts in a new folder, with keys of their own; what the job must give.

    An old program never takes its record back: whoever uses its key again dials a dead address.
    """
    config = Config.from_env()
    s3, folder, rng = client("s3", config), f"mixed-{uuid.uuid4().hex}", random.Random(11)
    lines = [b"%016x\n" % rng.getrandbits(64) for _ in range(20_000)]
    s3.put_object(Bucket=config.bucket, Key=INPUT, Body=b"".join(lines))
    for script in EXAMPLE.glob("*.sh"):
        text = script.read_text()
        for key in set(_KEY.findall(text)):
            text = text.replace(f"*{key}*", f"*{folder}-{key}*")
        s3.put_object(Bucket=config.bucket, Key=f"sls-scripts/{folder}/{script.name}", Body=text)
    yield folder, b"".join(sorted(lines))
    for key in (INPUT, OUTPUT):
        s3.delete_object(Bucket=config.bucket, Key=key)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to show another /opt/pashlib")
@pytest.mark.parametrize("old", ["workers", "splitter and merger"])
def test_old_on_one_side_and_ours_on_the_other(
    old: str, scripts: tuple[str, bytes], tmp_path: Path
) -> None:
    """The old side comes first: its only dial may else come before we know of it."""
    folder, wanted = scripts
    theirs, ours = (WORKERS, ENDS) if old == "workers" else (ENDS, WORKERS)
    results: dict[str, Result] = {}
    threads = []
    with ExitStack() as stack:
        machines = []
        for name in ("old", "new"):
            machines.append(Machine(tmp_path / name, old=name == "old"))
            stack.callback(machines[-1].stop)
        for machine in machines:
            machine.wait()

        def start(script: str, machine: Machine) -> None:
            def run() -> None:
                event = Event((Task(script, folder),))
                results[script] = Ec2Launcher(f"unix:{machine.socket}").run(event)

            threads.append(threading.Thread(target=run))
            threads[-1].start()

        for script in theirs:
            start(script, machines[0])
        wait_until(lambda: machines[0].registered() == 4, 240)
        for script in ours:
            start(script, machines[1])
        for thread in threads:
            thread.join()
        said = machines[1].log.read_text()
    assert all(result.ok for result in results.values()), results
    assert said.count("the peer speaks the old wire (v1)") == 4
    config = Config.from_env()
    got = client("s3", config).get_object(Bucket=config.bucket, Key=OUTPUT)["Body"].read()
    assert got == wanted
