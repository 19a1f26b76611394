"""`punch sh` with workers in containers: the result streams home, and workers are asked first."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from punchlib.runs import timeline
from punchlib.sh.plan import ON_EVERY_WORKER
from tests.e2e.cloud import Cloud

pytestmark = pytest.mark.e2e

LINE = r"tr -cs A-Za-z '\n' | sort | uniq -c | sort -rn | head -n 20"


@pytest.fixture
def text(cloud: Cloud) -> Path:
    return cloud.text(8_000_000)


def bash(line: str, text: Path) -> bytes:
    return subprocess.run(
        ["bash", "-c", f"cat {text} | {line}"],
        env={**os.environ, "LC_ALL": "C"},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout


def test_a_pipeline_without_ec2(cloud: Cloud, text: Path) -> None:
    done = cloud.sh("--width", "2", f"cat {text} | {LINE}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == bash(LINE, text)
    connected = [m for m in timeline.read(cloud.latest_run()) if m.event == "connection.connected"]
    # Between workers directly. This machine is on no side of the emulation's NATs: nothing that it
    # sends finds its way back to it, and the result comes over S3.
    results = {m.text("punch.key") for m in connected if m.node == "result"}
    between = [m.text("punch.route") for m in connected if m.text("punch.key") not in results]
    assert between and set(between) == {"punched"}
    assert len(results) == 1


def test_objects_by_a_pattern_and_a_reader_that_leaves(cloud: Cloud, text: Path) -> None:
    for number in range(3):
        cloud.write(f"sh/part{number}.txt", text.read_bytes())
    try:
        line = f"cat s3://{cloud.bucket}/sh/*.txt | grep -v xyzzy"
        done = cloud.sh("--width", "2", line, shell='| head -n 3; exit "${PIPESTATUS[0]}"')
        first = b"".join(text.read_bytes().splitlines(keepends=True)[:3])
        assert (done.returncode, done.stdout) == (141, first), done.stderr
    finally:
        for number in range(3):
            cloud.remove(f"sh/part{number}.txt")


def test_workers_put_their_pieces_into_an_object(cloud: Cloud, text: Path) -> None:
    """No last node: the object is one upload, of parts from each container."""
    data = text.read_bytes() * (1 + (24 << 20) // text.stat().st_size)
    cloud.write("sh/large.txt", data)
    try:
        at, out = f"s3://{cloud.bucket}/sh/large.txt", f"s3://{cloud.bucket}/sh/out"
        done = cloud.sh("--width", "3", f"cat {at} | tr a-z A-Z > {out}")
        assert (done.returncode, done.stdout) == (0, b""), done.stderr
        assert cloud.read("sh/out") == data.upper()
    finally:
        cloud.remove("sh/large.txt")
        cloud.remove("sh/out")


def test_a_command_that_no_worker_has(cloud: Cloud, text: Path) -> None:
    done = cloud.sh(f"cat {text} | no-such-command")
    assert done.returncode == 2
    assert b"the workers have no no-such-command" in done.stderr


def test_what_is_on_every_worker(cloud: Cloud) -> None:
    assert cloud.missing_commands(sorted(ON_EVERY_WORKER)) == []
