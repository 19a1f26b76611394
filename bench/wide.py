"""A wide job on this machine beside the same scripts over an ideal network, as ratios.

    python -m bench.wide [--width 16] [--runs 3] [--size 1700000] [--timeout S] [--json FILE]

The job is `tests.support.jobgen_wide`, at width 16 with the shape of the widest that are really
run: 83 scripts, 187 streams (at width 43: 218, 511). It runs as `punch run --local` runs it. The
ideal network is a FIFO: the same scripts on this one machine, where the sender's FIFO and the
receiver's are the same one and nobody calls `pashlib`. Both are run in turn, and a control group
counts the CPU time of everything that belongs to them. Exits with 1 where a run failed or a ratio
is over `--most`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.meter import Meter
from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.errors import PunchError
from punchlib.jobs import manifest, storage
from punchlib.jobs.events import EventSink
from punchlib.jobs.runner import JobRunner, RunRequest
from punchlib.jobs.streams import read
from punchlib.local.cloud import LocalCloud
from punchlib.runtime import layout
from tests.support.jobgen_draft import Draft
from tests.support.jobgen_wide import bigrams
from tests.support.texts import english

_PASHLIB = re.compile(r"^\{ /opt/pashlib .* & \}\npids_to_kill=.*\n", re.MULTILINE)


class Bench:
    """One job, its input, and the right output.

    Args:
        folder: for everything on disk.
        draft: the job.
        size: bytes of input.
    """

    def __init__(self, folder: Path, draft: Draft, size: int) -> None:
        self.draft = draft
        self._folder = folder
        self._input = folder / "in"
        self._input.write_bytes(english(size, seed=5))
        draft.write(folder / "job")
        env = os.environ | {"IN1": str(self._input), "LC_ALL": "C.UTF-8"}
        command = ["bash", "-o", "pipefail", "-c", draft.pipeline]
        self._wanted = subprocess.run(command, env=env, capture_output=True, check=True).stdout
        layout.lay_out(folder / "top")

    def punched(self, cloud: LocalCloud, timeout: float) -> None:
        """Runs the job as it is.

        Raises:
            PunchError: it failed.
        """
        config = Config.from_env()
        s3 = client("s3", config)
        out = self._folder / "out"
        request = RunRequest(
            {self.draft.inputs[0]: self._input}, {self.draft.output: out}, timeout=timeout
        )
        job = manifest.load(self._folder / "job")
        JobRunner(job, request, cloud.launchers, s3, config, EventSink(lambda _: None)).run()
        self._compare(out)

    def ideal(self, timeout: float) -> None:
        """Runs the scripts side by side, connected by FIFOs.

        Raises:
            PunchError: a script failed.
        """
        config = Config.from_env()
        s3 = client("s3", config)
        work = Path(tempfile.mkdtemp(dir=self._folder, prefix="ideal-"))
        storage.upload(s3, config.bucket or "", self.draft.inputs[0], self._input)
        running = []
        for id_, text in self._ideal_scripts(work):
            script = work / f"{id_}.sh"
            script.write_text(text)
            env = os.environ | {"PUNCH_STATE_DIR": str(work / f"{id_}.state")}
            with (work / f"{id_}.log").open("wb") as log:
                command = ["timeout", str(timeout), "bash", str(script), "ideal"]
                top = self._folder / "top"
                running.append(subprocess.Popen(command, cwd=top, env=env, stdout=log, stderr=log))
        codes = [process.wait() for process in running]
        if any(codes):
            raise PunchError(f"over the ideal network {sum(map(bool, codes))} scripts failed")
        out = self._folder / "ideal-out"
        storage.download(s3, config.bucket or "", self.draft.output, out)
        self._compare(out)
        shutil.rmtree(work)

    def _ideal_scripts(self, work: Path) -> Iterator[tuple[str, str]]:
        """Each script with its streams' FIFOs in the place of `pashlib`."""
        nets = work / "net"
        nets.mkdir()
        for id_, script in self.draft.scripts.items():
            text = _PASHLIB.sub("", script.text())
            for stream in read(script.text()).streams:
                fifo = nets / stream.key
                if not fifo.exists():
                    os.mkfifo(fifo)
                text = "".join(
                    "" if f'{stream.fifo}" ; }}' in line else line  # its mkfifo and its rm
                    for line in text.splitlines(keepends=True)
                ).replace(f'"{stream.fifo}"', f'"{fifo}"')
            yield id_, text.replace(script.folder, f"{work}/{id_}/")

    def _compare(self, out: Path) -> None:
        got = out.read_bytes()
        out.unlink()
        if got != self._wanted:
            raise PunchError(f"{len(got)} bytes of output where {len(self._wanted)} are right")


def shape(draft: Draft) -> str:
    """The job in numbers."""
    scripts = draft.scripts.values()
    stages = [s for script in scripts for s in script.stages]
    groups = [g for script in scripts for g in script.streams.values()]
    counted = {
        "scripts": len(scripts),
        "streams": draft.connections,
        "pashlib": len(groups),
        "streams of one pashlib": max(map(len, groups)),
        "FIFOs": sum(len(script.fifos) for script in scripts),
        **{tool: sum(tool in stage for stage in stages) for tool in ("dgsh-tee", "r_wrap")},
        "sort": sum(bool(re.search(r" sort\b|^sort\b", stage)) for stage in stages),
    }
    return ", ".join(f"{number} {what}" for what, number in counted.items())


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--width", type=int, default=16)
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--size", type=int, default=1_700_000)
    arguments.add_argument("--timeout", type=float, help="default: 7.5 s × the width")
    arguments.add_argument("--most", type=float, help="the largest ratio that is no failure")
    arguments.add_argument("--json", type=Path)
    args = arguments.parse_args()
    timeout = args.timeout or 7.5 * args.width
    draft = bigrams(args.width)
    print(shape(draft), flush=True)
    rows: list[dict[str, float]] = []
    failures: list[str] = []
    with (
        Meter() as meter,
        tempfile.TemporaryDirectory(prefix="punch-wide-") as name,
        LocalCloud() as cloud,
    ):
        bench = Bench(Path(name), draft, args.size)

        def measured(what: str) -> dict[str, float]:
            meter.reset()
            cpu, started = meter.cpu(), time.monotonic()
            try:
                bench.ideal(timeout) if what == "ideal" else bench.punched(cloud, timeout)
            except PunchError as error:
                failures.append(f"{what}: {error}")
                print(f"  FAILED {failures[-1][:600]}", flush=True)
            return {
                f"{what}_s": time.monotonic() - started,
                f"{what}_cpu_s": meter.cpu() - cpu,
                f"{what}_mb": meter.peak_mb,
            }

        measured("ideal")  # makes the files warm
        for n in range(args.runs):
            row = measured("ideal") | measured("punched")
            row |= {x: row[f"punched_{x}"] / row[f"ideal_{x}"] for x in ("s", "cpu_s")}
            rows.append(row)
            print(
                f"  {n + 1:3}  ideal {row['ideal_s']:5.1f} s {row['ideal_cpu_s']:5.1f} CPU-s"
                f"   punched {row['punched_s']:5.1f} s {row['punched_cpu_s']:5.1f} CPU-s"
                f" {row['punched_mb']:5.0f} MB   {row['s']:.1f}× {row['cpu_s']:.1f}×",
                flush=True,
            )
    middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    figures = {"shape": shape(draft), "runs": len(rows), "failed": len(failures)} | middle
    most = max(row["punched_mb"] for row in rows)
    print(
        f"{len(rows)} runs, {len(failures)} failed; median {middle['s']:.1f}× the ideal network's"
        f" time at {middle['cpu_s']:.1f}× its CPU, at most {most:.0f} MB"
    )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    too_much = args.most and max(middle["s"], middle["cpu_s"]) > args.most
    return 1 if failures or too_much else 0


if __name__ == "__main__":
    raise SystemExit(main())
