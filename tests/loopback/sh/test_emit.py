"""`punch sh`'s jobs on the embedded cloud: byte for byte what bash gives under LC_ALL=C."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

import pytest

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.jobs import checks, manifest
from punchlib.jobs.events import EventSink
from punchlib.jobs.runner import JobRunner, RunRequest
from punchlib.local.cloud import LocalCloud
from punchlib.sh import plan as planning
from punchlib.sh.emit import Emitter, Input
from punchlib.sh.pieces import ENV
from punchlib.sh.reading import read
from tests.support.sh_files import write_files
from tests.support.sh_pipelines import PIPELINES

#: Those that run each time, at one width; the others are slow.
ALWAYS = {
    "word-frequency": 3, "top-words": 2, "count-all": 3, "count-lines": 2, "no-match-sorted": 2,
    "shortest-first": 2, "set-difference": 2, "log-errors-by-host": 3, "log-gaps": 3,
    "reverse-order": 2, "several-files": 3, "no-final-newline": 3, "cat-of-open": 2,
    "awk-sum": 1, "sequence": 1, "empty": 3, "joined-lines": 2, "squeeze-after-grep": 2,
    "distinct-words": 1, "first-lines": 3, "xargs": 2, "head-of-counts": 2,
}  # fmt: skip
CASES = [
    pytest.param(
        name,
        width,
        id=f"{name}-{width}",
        marks=[] if ALWAYS.get(name) == width else pytest.mark.slow,
    )
    for name in PIPELINES
    for width in (1, 2, 3)
]


def run(cloud: LocalCloud, text: str, files: dict[str, str], folder: Path, width: int) -> bytes:
    """What the job of a pipeline writes."""
    plan = planning.make(read(text, files), whole="it is open" if "OPEN $IN" in text else "")
    token = secrets.token_hex(4)
    names = [*(plan.inputs or ()), *(c.words[i] for c in plan.tail for i in c.inputs)]
    puts = {f"{token}/{Path(name).name}": Path(name) for name in names}
    inputs = {str(p): Input(key, p.stat().st_size) for key, p in puts.items()}
    job = folder / f"job-{token}"
    Emitter(plan, width, inputs, f"{token}/result", token).write(job, "a test")
    events = EventSink(lambda event: None)
    loaded = manifest.load(job)
    checks.check(loaded, events, local=True)
    assert not [m for m in events.moments if m.event == "run.warning"]
    config = Config.from_env()
    request = RunRequest(puts, {f"{token}/result": folder / "out"}, timeout=100)
    s3 = client("s3", config)
    JobRunner(loaded, request, cloud.launchers, s3, config, events).run()
    return (folder / "out").read_bytes()


def bash(text: str, files: dict[str, str]) -> bytes:
    done = subprocess.run(
        ["bash", "-c", text], env={**ENV, **files}, capture_output=True, check=False
    )
    return done.stdout


@pytest.mark.parametrize(("name", "width"), CASES)
def test_as_bash(name: str, width: int, cloud: LocalCloud, tmp_path: Path) -> None:
    files = write_files(tmp_path)
    text, _ = PIPELINES[name]
    assert run(cloud, text, files, tmp_path, width) == bash(text, files)


@pytest.mark.slow
def test_a_tree_of_merges(cloud: LocalCloud, tmp_path: Path) -> None:
    files = write_files(tmp_path)
    text = "cat $IN | tr -cs A-Za-z '\\n' | sort | uniq -c"
    assert run(cloud, text, files, tmp_path, 18) == bash(text, files)
