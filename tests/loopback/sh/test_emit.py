"""`punch sh`'s jobs on the embedded cloud: byte for byte what bash gives under LC_ALL=C."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
from pathlib import Path

import pytest

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.errors import JobFailed
from punchlib.jobs import checks, manifest
from punchlib.jobs.events import EventSink
from punchlib.jobs.runner import JobRunner, RunRequest
from punchlib.jobs.storage import STDOUT
from punchlib.local.cloud import LocalCloud
from punchlib.sh import plan as planning
from punchlib.sh.emit import Emitter
from punchlib.sh.pieces import Input
from punchlib.sh.reading import read
from punchlib.sh.trial import ENV
from tests.support.sh_files import write_files
from tests.support.sh_pipelines import PIPELINES

WIDTHS = (1, 2, 3, 8, 16)
#: Which run is drawn, SH_SEED=N draws others: so many each time, each pipeline at one width with
#: those that are slow, and with SH_ALL=1 (`make sh-grid`) all at all widths.
OFTEN = 24
_DICE = random.Random(os.environ.get("SH_SEED", "1"))
_DRAWN = {name: _DICE.choice(WIDTHS) for name in PIPELINES}
_OFTEN = {name for name in _DICE.sample(sorted(PIPELINES), OFTEN) if _DRAWN[name] < WIDTHS[-1]}
CASES = [
    pytest.param(name, width, marks=[] if name in _OFTEN else pytest.mark.slow)
    for name in PIPELINES
    for width in WIDTHS
    if width == _DRAWN[name] or os.environ.get("SH_ALL")
]


def run(
    cloud: LocalCloud,
    text: str,
    files: dict[str, str],
    folder: Path,
    width: int,
    output: str = "",
) -> bytes:
    """What the job of a pipeline writes, to us or into an object."""
    plan = planning.make(read(text, files), whole="it is open" if "OPEN $IN" in text else "")
    token = secrets.token_hex(4)
    names = [*(plan.inputs or ()), *(c.words[i] for c in plan.tail for i in c.inputs)]
    puts = {f"{token}/{Path(name).name}": Path(name) for name in names}
    inputs = {str(p): Input(key, p.stat().st_size) for key, p in puts.items()}
    job = folder / f"job-{token}"
    Emitter(plan, width, inputs, output, token).write(job, "a test")
    events = EventSink(lambda event: None)
    loaded = manifest.load(job)
    checks.check(loaded, events, local=True)
    assert not [m for m in events.moments if m.event == "run.warning"]
    config = Config.from_env()
    out = folder / "out"
    gets = {output: out} if output else {}
    request = RunRequest(puts, gets, timeout=100, result=STDOUT if output else out)
    s3 = client("s3", config)
    JobRunner(loaded, request, cloud.launchers, s3, config, events).run()
    return out.read_bytes()


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


@pytest.mark.parametrize(("width", "copies"), [(1, 1), (3, 1), (3, 80), (8, 20)])
def test_workers_put_their_pieces(
    width: int, copies: int, cloud: LocalCloud, tmp_path: Path
) -> None:
    """As parts of one upload; what is smaller than a part goes to the next worker."""
    files = write_files(tmp_path)
    text = Path(files["IN"])
    text.write_bytes(text.read_bytes().rstrip(b"\n") * copies + b"\n")
    line = "cat $IN | tr a-z A-Z | sed 's/E/ee/'"
    got = run(cloud, f"{line} > s3://punch/pieces", files, tmp_path, width, "pieces")
    assert got == bash(line, files)
    s3, bucket = client("s3", Config.from_env()), Config.from_env().bucket
    assert not s3.list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert not list(tmp_path.glob("job-*/last.sh"))


@pytest.mark.parametrize("at", [0.1, 0.5, 0.999])
def test_a_worker_that_fails_while_others_put(at: float, cloud: LocalCloud, tmp_path: Path) -> None:
    """It is the cause that is told, and not what its failure does to the others."""
    files = write_files(tmp_path)
    text = Path(files["IN"])
    data = bytearray(text.read_bytes() * 150)
    data[int(len(data) * at)] = 0
    text.write_bytes(data)
    with pytest.raises(JobFailed) as failed:
        run(cloud, "cat $IN | grep e > s3://punch/pieces", files, tmp_path, 3, "failed/pieces")
    assert "the input holds a NUL byte" in str(failed.value)
    s3, bucket = client("s3", Config.from_env()), Config.from_env().bucket
    assert not s3.list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert not s3.list_objects_v2(Bucket=bucket, Prefix="failed/").get("Contents")
