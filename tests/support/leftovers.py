"""Runs jobs and ends them at drawn moments, in a world where everything else is nothing.

    python -m tests.support.leftovers FOLDER SEED COUNT [local|aws]

It must be process 1's only child in process, mount, network and IPC namespaces of its own, with
an empty /tmp (`world`): then every process, socket and file that is there a while after a run is
something that the run left. One JSON object a run on stdout.

local   `punch run --local`: everything is the run's own, so nothing at all may be left.
aws     `punch run` against an S3, a table and an EC2 handler that stay: they must be as before.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: Seconds after which nothing may be left.
PATIENCE = 30.0
#: Seconds that a run may take in all; a busy machine takes its time.
LONGEST = 120.0
#: Connections to S3 that a handler keeps.
KEPT = 64
PUNCH = [str(Path(sys.executable).parent / "punch"), "run"]
#: How a run ends, and how often that is drawn.
WAYS = {"well": 1, "failed": 1, "INT": 3, "TERM": 3, "KILL": 4}
KEY_IN, KEY_OUT = "in.txt", "out.txt"


@dataclass
class Run:
    """One run.

    Attributes:
        way: a name of `WAYS`.
        moment: seconds after the start at which the signal came.
        lasted: seconds from its start to its end.
        status: exit status, negative after a signal that nobody handled.
        clean_after: seconds from the end until nothing was left; None: something still is.
        left: what, where something is.
        wrong: what else is not as it must be.
    """

    way: str
    moment: float = 0.0
    lasted: float = 0.0
    status: int | None = None
    clean_after: float | None = None
    left: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def world(arguments: list[str]) -> list[str]:
    """The command that runs this module with nothing around it."""
    script = """
        mount -t tmpfs none /tmp && { [ ! -d /dev/shm ] || mount -t tmpfs none /dev/shm; } &&
        ip link set lo up && mkdir /tmp/home && "$@"
    """
    flags = ["--pid", "--fork", "--mount", "--net", "--ipc", "--mount-proc", "--kill-child"]
    inner = [sys.executable, "-m", "tests.support.leftovers", *arguments]
    return ["unshare", *flags, "--", "sh", "-c", script, "sh", *inner]


class Local:
    """Jobs by `punch run --local`."""

    def __init__(self, folder: Path) -> None:
        #: What an earlier run has been blamed for.
        self.blamed: set[str] = set()
        self.jobs = {"well": folder / "job", "failed": folder / "failing"}
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": "/tmp/home",
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }
        self.options = ["--local"]

    def left(self) -> list[str]:
        """All that is there beside us."""
        return [*_processes(set()), *_files(), *_sockets(set())]

    def close(self) -> None:
        return None


class Aws(Local):
    """Jobs against services that stay: MiniStack and an EC2 handler."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from tests.support import ministack

        services = Path("/tmp/services")
        services.mkdir()
        stack, self._ministack = ministack.start(services)
        self.env |= {**stack.env, "AWS_BUCKET": "bucket", "TMPDIR": str(services)}
        self._s3 = stack.client("s3")
        self._table = stack.client("dynamodb")
        self._s3.create_bucket(Bucket="bucket")
        from punchlib.runtime import layout

        layout.lay_out(services / "top")
        layout.lay_out_bin(services / "bin")
        layout.write_pashlib(services / "pashlib")
        self.env["PATH"] = f"{services / 'bin'}:{self.env['PATH']}"
        addresses = ["127.0.0.1:3478", "127.0.0.2:3478"]
        stun = [sys.executable, "-P", "-m", "punchlib.local.stun_server", *addresses]
        self._stun = subprocess.Popen(stun, env=self.env, stdin=subprocess.DEVNULL, stdout=2)
        self.env["PASH_STUN_SERVER"] = ",".join(addresses)
        self._handler = subprocess.Popen(
            [PUNCH[0], "ec2-handler", "--pashlib", str(services / "pashlib")],
            env=self.env | {"PASH_TOP": str(services / "top")},
            stdin=subprocess.DEVNULL,
            stdout=2,
        )
        # The user's environment of a run does not name our folder.
        del self.env["TMPDIR"]
        self.options = []
        self._wait_for_handler()
        time.sleep(2.0)  # until its engine has imported everything
        self._kept = set(_pids())
        self._sockets = set(_sockets(set()))
        self._descriptors = self._count_descriptors()
        self._elsewhere = set(_files())
        self._folders = {str(p) for p in services.iterdir()}

    def left(self) -> list[str]:
        found = [*_processes(self._kept), *_sockets(self._sockets)]
        found += [f for f in _files() if f not in self._elsewhere]
        found += [
            f"file {p}" for p in Path("/tmp/services").iterdir() if str(p) not in self._folders
        ]
        for root in Path("/tmp/services").glob("punch-ec2-*"):
            found += [f"file {p}" for p in root.iterdir()]
        found += [
            f"upload of {u['Key']}"
            for u in self._s3.list_multipart_uploads(Bucket="bucket").get("Uploads", [])
        ]
        found += [
            f"object {o['Key']}"
            for o in self._s3.list_objects_v2(Bucket="bucket").get("Contents", [])
            if o["Key"].startswith("punch-streams/")
        ]
        found += [f"record {r}" for r in self._records()]
        if self._handler.poll() is not None:
            found.append("nothing of the handler: it has ended")
        elif (now := self._count_descriptors()) > self._descriptors + KEPT:
            found.append(f"{now - self._descriptors} descriptors of the handler")
        return found

    def _records(self) -> Iterator[str]:
        if "rdv" in self._table.list_tables()["TableNames"]:
            for item in self._table.scan(TableName="rdv")["Items"]:
                # Word that is left for a peer goes when the table forgets it.
                records = {a: v["S"] for a, v in item.items() if a.startswith("N_")}
                assert "expires_at" in item
                yield from (
                    f"{item['key']['S']} {a}" for a, v in records.items() if "gone" not in v
                )

    def _count_descriptors(self) -> int:
        return len(list(Path(f"/proc/{self._handler.pid}/fd").iterdir()))

    def _wait_for_handler(self) -> None:
        import socket

        deadline = time.monotonic() + LONGEST
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", 9999), 1.0).close()
                return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError("the EC2 handler does not listen")

    def close(self) -> None:
        for process in (self._handler, self._stun, self._ministack):
            process.terminate()
            process.wait(20)


def run(place: Local, way: str, moment: float) -> Run:
    """One run, and what it left."""
    result = Run(way, moment)
    out, errors = Path("/tmp/out"), Path("/tmp/errors")
    before = _digest(place.jobs["well"].parent)
    job = place.jobs["failed" if way == "failed" else "well"]
    command = [*PUNCH, *place.options, str(job), "--timeout", "60"]
    command += ["--put", f"{KEY_IN}={job.parent / 'input'}", "--get", f"{KEY_OUT}={out}"]
    began = time.monotonic()
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            command, env=place.env, stdin=subprocess.DEVNULL, stderr=stderr, cwd="/tmp/home"
        )
        try:
            if way in ("INT", "TERM", "KILL"):
                try:
                    process.wait(moment)
                except subprocess.TimeoutExpired:
                    process.send_signal(_number(way))
            result.status = process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            result.wrong.append(f"it did not end within {LONGEST:g} s")
            result.wrong += _standing()
            process.kill()
            process.wait()
    result.lasted = time.monotonic() - began
    said = errors.read_text(errors="replace")
    _judge(result, out, (job.parent / "wanted").read_bytes(), said)
    out.unlink(missing_ok=True)
    errors.unlink()
    ended = time.monotonic()
    while left := [what for what in place.left() if what not in place.blamed]:
        if time.monotonic() > ended + PATIENCE:
            result.left = left
            place.blamed.update(left)
            break
        time.sleep(0.05)
    else:
        result.clean_after = time.monotonic() - ended
    if _digest(place.jobs["well"].parent) != before:
        result.wrong.append("the job's folder has changed")
    return result


def _judge(result: Run, out: Path, wanted: bytes, said: str) -> None:
    statuses = {
        "well": {0},
        "failed": {1},
        # It may have ended before the signal came.
        "INT": {130, 0},
        "TERM": {143, 0},
        "KILL": {-9, 0},
    }
    if not _beside_our_code(result, said):
        if result.status not in statuses[result.way]:
            result.wrong.append(f"status {result.status}: {said[-600:]}")
        if "Traceback" in said:
            result.wrong.append(f"a traceback: {said[-1500:]}")
    if out.exists() and out.read_bytes() != wanted:
        result.wrong.append(f"{out.stat().st_size} bytes of output, {len(wanted)} wanted")
    if result.status == 0 and not out.exists():
        result.wrong.append("no output with status 0")


def _beside_our_code(result: Run, said: str) -> bool:
    """Whether the signal met Python while it started or ended, where no line of ours runs.

    There its end is the interpreter's: of a Ctrl-C a fatal error out of `site`, else the signal.
    """
    if result.way == "INT" and result.status == 1:
        return "init_import_site" in said
    alone = not said or "the job went well" in said
    return result.way in ("INT", "TERM") and result.status == -_number(result.way) and alone


def _number(way: str) -> int:
    return int(getattr(signal, f"SIG{way}"))


def _pids() -> list[int]:
    us = {1, os.getpid()}
    return [
        int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and int(p.name) not in us
    ]


def _processes(kept: set[int]) -> list[str]:
    found = []
    for pid in _pids():
        if pid in kept:
            continue
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            found.append(f"process {pid} {words[:150].decode(errors='replace')}")
        except OSError:
            continue  # it has just ended
    return found


def _standing() -> list[str]:
    """What every process waits for: in which call of the kernel each of its threads is."""
    found = []
    for line in _processes(set()):
        tasks = Path(f"/proc/{line.split()[1]}/task")
        try:
            waits = [
                (t / "wchan").read_text() + " " + (t / "syscall").read_text().split()[0]
                for t in tasks.iterdir()
            ]
        except (OSError, IndexError):
            continue  # it has just ended
        found.append(f"{line}: {', '.join(waits)}")
    return found


def _files() -> list[str]:
    known = {"/tmp/home", "/tmp/errors"}
    folders = [p for p in (Path("/tmp"), Path("/dev/shm")) if p.is_dir()]
    found = [p for f in folders for p in f.iterdir() if str(p) not in known]
    # What is kept of runs, on purpose, and nothing else.
    kept = re.compile(
        r"/tmp/home/\.local/state/punch/runs/[^/]+/(events\.jsonl|live\.jsonl|run\.json)"
    )
    homes = (p for p in Path("/tmp/home").rglob("*") if not p.is_dir())
    return [f"file {p}" for p in (*found, *homes) if not kept.fullmatch(str(p))]


def _sockets(kept: set[str]) -> list[str]:
    """Listening and abstract sockets of this network namespace."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A":
            found.append(f"listener {words[1]}")
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        if len(words := line.split()) > 7:
            found.append(f"socket {words[7]}")
    return [s for s in found if s not in kept]


def _digest(folder: Path) -> dict[str, Any]:
    return {
        str(p): (p.stat().st_mode, p.read_bytes() if p.is_file() else b"")
        for p in sorted(folder.rglob("*"))
    }


def main() -> int:
    """The command line above."""
    folder, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    draws = random.Random(seed)
    place = Aws(folder) if sys.argv[4:] == ["aws"] else Local(folder)
    try:
        first = run(place, "well", 0.0)
        print(json.dumps(asdict(first)), flush=True)
        for _ in range(count - 1):
            (way,) = draws.choices(list(WAYS), list(WAYS.values()))
            # More often in the beginning, where everything is being started.
            moment = first.lasted * draws.random() ** 1.5
            print(json.dumps(asdict(run(place, way, moment))), flush=True)
    finally:
        place.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
