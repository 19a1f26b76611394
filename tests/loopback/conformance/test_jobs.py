"""Whole jobs in the shape of generated scripts, on loopback, against the plain pipeline.

Every job runs on one local cloud, with the same keys as ever: replays must work.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.jobs import checks, manifest
from punchlib.jobs.events import EventSink, JobEvent
from punchlib.jobs.runner import JobRunner, RunRequest
from punchlib.local.cloud import LocalCloud
from tests.support.jobgen import JOBS, s3_ranges, sort_job
from tests.support.jobgen_draft import Draft
from tests.support.jobgen_wide import bigrams
from tests.support.texts import english
from tests.support.tiers import quick

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as cloud:
        yield cloud


def run(cloud: LocalCloud, draft: Draft, inputs: list[bytes], folder: Path) -> tuple[bytes, bytes]:
    """What the job gives, and what the pipeline gives."""
    draft.write(folder / "job")
    files = []
    for number, data in enumerate(inputs):
        files.append(folder / f"in{number}")
        files[-1].write_bytes(data)
    out = folder / "out"
    events: list[JobEvent] = []
    sink = EventSink(events.append)
    job = manifest.load(folder / "job")
    checks.check(job, sink, local=True)
    config = Config.from_env()
    request = RunRequest(
        dict(zip(draft.inputs, files, strict=True)), {draft.output: out}, timeout=120
    )
    JobRunner(job, request, cloud.launchers, client("s3", config), config, sink).run()
    env = {**os.environ, "LC_ALL": "C.UTF-8"} | {f"IN{n}": str(f) for n, f in enumerate(files, 1)}
    plain = subprocess.run(
        ["bash", "-o", "pipefail", "-c", draft.pipeline], env=env, capture_output=True, check=False
    )
    return out.read_bytes(), plain.stdout


@pytest.mark.parametrize("name", quick((n for n in JOBS if n != "large"), 5))
def test_a_job_gives_what_the_pipeline_gives(name: str, cloud: LocalCloud, tmp_path: Path) -> None:
    draft = JOBS[name]()
    inputs = [english(1_500_000, seed=1), english(20_000, seed=2)][: len(draft.inputs)]
    got, wanted = run(cloud, draft, inputs, tmp_path)
    assert got == wanted
    assert (wanted == b"") == (name == "grep-nothing")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"one line\n", id="one line"),
        pytest.param(b"no newline at the end", id="no newline"),
        pytest.param(b"b\n" * 3 + b"a\n\n\nlast", id="fewer lines than bytes need"),
        pytest.param(b"x" * 3_000_000 + b"\nshort\n", id="a line longer than a block"),
    ],
)
def test_inputs_at_the_edge(data: bytes, cloud: LocalCloud, tmp_path: Path) -> None:
    got, wanted = run(cloud, sort_job(2), [data], tmp_path)
    assert got == wanted


def ragged(size: int) -> bytes:
    """Lines of very different lengths, some longer than a range."""
    dice = random.Random(7)
    out = bytearray()
    while len(out) < size:
        length = dice.choice((0, 1, 9, 80, 3000))
        out += bytes(dice.choices(b"abcdef", k=length)) + b"\n"
    return bytes(out)


@pytest.mark.parametrize(
    ("data", "shards"),
    [
        pytest.param(english(300_000, seed=3), 3, id="text"),
        pytest.param(
            b"0123456\n" * 1024, 4, id="a line begins on each boundary", marks=pytest.mark.slow
        ),
        pytest.param(ragged(20_000), 8, id="lines longer than a range"),
        pytest.param(ragged(9_000)[:-1], 3, id="no final newline", marks=slow),
        pytest.param(b"", 2, id="empty object"),
        pytest.param(b"a\nb", 6, id="more shards than bytes", marks=slow),
    ],
)
def test_ranges_read_by_the_workers(
    data: bytes, shards: int, cloud: LocalCloud, tmp_path: Path
) -> None:
    got, wanted = run(cloud, s3_ranges(len(data), shards), [data], tmp_path)
    assert got == wanted


@pytest.mark.slow
def test_trees_of_scripts_with_three_processes_each(cloud: LocalCloud, tmp_path: Path) -> None:
    """A small one of those that `make bench-wide` runs; an odd width, so a part goes up alone."""
    got, wanted = run(cloud, bigrams(5), [english(200_000, seed=6)], tmp_path)
    assert got == wanted


@pytest.mark.slow
def test_83_scripts_with_187_connections(cloud: LocalCloud, tmp_path: Path) -> None:
    draft = JOBS["large"]()
    assert (len(draft.scripts), draft.connections) == (83, 187)
    got, wanted = run(cloud, draft, [english(3_000_000, seed=4)], tmp_path)
    assert got == wanted
