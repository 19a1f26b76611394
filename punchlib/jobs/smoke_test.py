"""The example job, run against a deployment: does all of it work together?"""

from __future__ import annotations

import random
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.errors import JobFailed
from punchlib.jobs import manifest, storage
from punchlib.jobs.events import EventSink
from punchlib.jobs.launch import Launcher
from punchlib.jobs.runner import JobRunner, RunRequest

#: What the example's scripts call their input and their output.
INPUT = "oneliners/inputs/1M.txt"
OUTPUT = "oneliners/outputs/sort.sh:1M.txt:2:leashstdout.txt"
#: Seconds; four cold starts are the most of it.
TIMEOUT = 180.0


def run(launcher: Launcher, config: Config, events: EventSink, lines: int = 20_000) -> None:
    """Sorts some lines with the example's four scripts, all on Lambda, and compares.

    Raises:
        JobFailed: the job failed, or its result is not what `sort` gives.
    """
    rng = random.Random(lines)
    text = sorted(f"{rng.getrandbits(64):016x}\n" for _ in range(lines))
    with (
        tempfile.TemporaryDirectory(prefix="punch-smoke-") as name,
        as_file(files("punchlib.jobs").joinpath("smoke", "sort-width2")) as scripts,
    ):
        folder = Path(name)
        given, result = folder / "in.txt", folder / "out.txt"
        given.write_text("".join(rng.sample(text, len(text))))
        s3 = client("s3", config)
        job = manifest.load(scripts)
        request = RunRequest({INPUT: given}, {OUTPUT: result}, TIMEOUT)
        try:
            JobRunner(job, request, {"lambda": launcher, "ec2": launcher}, s3, config, events).run()
            if result.read_text() != "".join(text):
                raise JobFailed(
                    "the smoke test's result is not what sort gives",
                    next_step="please report it, with the function's log",
                )
        finally:
            for key in (INPUT, OUTPUT):
                storage.delete_prefix(s3, config.bucket or "", key)
