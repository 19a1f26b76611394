"""Runs one case: its scripts, the blow, and what came of it."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from punchlib.config import Config
from punchlib.errors import PunchError
from punchlib.jobs import manifest
from punchlib.jobs.events import EventSink
from punchlib.jobs.launch import Launcher
from punchlib.jobs.runner import JobRunner, RunRequest
from punchlib.node.protocol import Event, Task, script_key
from punchlib.runtime import engine_client
from tests.truth import victims
from tests.truth.case import Case
from tests.truth.scripts import Node, Place, Scripts
from tests.truth.verdict import FACTOR, Ended, Outcome, judge
from tests.truth.world import REPOSITORY, World, fill, mount_disk, nonce, unmount_disk

#: PUNCH_TIMEOUT: a peer that was killed before it came is waited for that long.
PEER_TIME = 40.0 * FACTOR
#: PUNCH_STALL_TIMEOUT: with streams through S3 no kernel tells of a killed peer.
STALL = 40.0 * FACTOR
#: Seconds within which a case must have ended.
DEADLINE = 120.0 * FACTOR
#: PUNCH_FAILURE_GRACE by hand.
GRACE = 2
#: Seconds for a victim to appear.
SEARCH = 2.0 * FACTOR
#: Seconds for which a stopped victim stands.
STANDSTILL = 0.4
#: Seconds for what a killed shell or client leaves behind to end by itself.
AFTERMATH = 8.0 * FACTOR
#: Seconds between two looks whether the time is up.
LOOK = 5.0
BEFORE = b"what was there before\n"
FOLDER = "truth"


@dataclass
class Running:
    """One node that runs.

    Attributes:
        shell: finds the pid of its bash; 0 while there is none.
    """

    node: Node
    shell: Callable[[], int]
    ended: Ended | None = None


@dataclass
class Run:
    """One run of one case."""

    case: Case
    world: World
    nonce: str = field(default_factory=nonce)
    struck: bool = False
    killed: str = ""
    nodes: list[Running] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = self.world.root / "cases" / self.nonce
        self.disk = self.folder / "disk"
        self.key = f"truth-outputs/{self.nonce}"
        self._done, self._tell = os.pipe()

    def outcome(self) -> Outcome:
        """Runs the case to its end; what its scripts left stays only where it is wrong."""
        began = time.monotonic()
        self.folder.mkdir()
        if self.case.before:
            self.world.s3.put_object(Bucket=self.world.bucket, Key=self.key, Body=BEFORE)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, self._done)
            stack.callback(os.close, self._tell)
            in_time = self._run(stack)
        outcome = judge(
            self.case,
            ended=[node.ended or Ended(node.node.name, -1, "still running") for node in self.nodes],
            found=self.object(),
            expected=self.world.expected(self.case.size, self.case.work),
            before=BEFORE if self.case.before else None,
            struck=self.struck,
            in_time=in_time,
            seconds=time.monotonic() - began,
        )
        outcome.key, outcome.folder = self.key, self.folder
        if outcome.good:
            shutil.rmtree(self.folder, ignore_errors=True)
        return outcome

    def object(self) -> bytes | None:
        return read_object(self.world, self.key)

    def _run(self, stack: contextlib.ExitStack) -> bool:
        ask, go = self.folder / "ask", self.folder / "go"
        pipes = []
        for path in (ask, go):
            os.mkfifo(path)
            pipes.append(os.open(path, os.O_RDWR | os.O_NONBLOCK))
            stack.callback(os.close, pipes[-1])
        if self.case.disk != "ok" and self.case.by_hand:
            mount_disk(self.disk, ",nr_inodes=16" if self.case.disk == "no-inodes" else "")
            stack.callback(unmount_disk, self.disk)
        elif self.case.disk != "ok":
            stack.enter_context(self.world.small_lock)
        scripts = Scripts(
            self.case,
            Place(
                fifos=str(self.world.root / "fifos") if self.case.by_hand else "/tmp/pash_truth",
                bomb=self.world.root / "bomb.sh",
                ask=ask,
                go=go,
                python=sys.executable,
                repository=REPOSITORY,
                exports=self._exports(),
            ),
            self.nonce,
            self.world.source(self.case.size),
            self.key,
        )
        self._start(scripts, stack)
        in_time = self._watch(*pipes)
        self._sweep()
        for node in scripts.nodes.values():
            shutil.rmtree(node.folder, ignore_errors=True)
        return in_time

    def _exports(self) -> dict[str, str]:
        values = {
            "PUNCH_TIMEOUT": f"{PEER_TIME:g}",
            "PUNCH_STALL_TIMEOUT": f"{STALL:g}",
            "PUNCH_ROUTES": self.case.routes,
            "PUNCH_SECURITY": self.case.security,
        }
        return {name: value for name, value in values.items() if value}

    # --- the nodes ----------------------------------------------------------------------------

    def _start(self, scripts: Scripts, stack: contextlib.ExitStack) -> None:
        texts = scripts.texts()
        for node in scripts.nodes.values():
            folder = self.folder / node.name
            folder.mkdir()
            (folder / f"{node.id}.sh").write_text(texts[node.name])
        if self.case.by_hand:
            env = self._environment(stack)
            for node in scripts.nodes.values():
                self._start_by_hand(node, env)
        elif self.case.way == "job":
            self._start_job(scripts)
        else:
            job_key = secrets.token_hex(32)
            for node in scripts.nodes.values():
                self._start_by_handler(node, texts[node.name], job_key)

    def _environment(self, stack: contextlib.ExitStack) -> dict[str, str]:
        env = {**os.environ, "PUNCH_FAILURE_GRACE": str(GRACE), victims.RUN: self.nonce}
        if self.case.disk == "tmp-full":
            env["TMPDIR"] = str(self.disk)
        if self.case.disk in ("state-full", "tmp-full"):
            fill(self.disk)
        if not self.case.engine:
            env[engine_client.ENGINE] = ""
        elif self.case.victim == "engine":
            env[engine_client.ENGINE] = stack.enter_context(self.world.own_engine(self.nonce))
        return env

    def _start_by_hand(self, node: Node, env: dict[str, str]) -> None:
        folder = self.folder / node.name
        for name in ("runtime", "aws"):
            (folder / name).symlink_to(self.world.top / name)
        script = f"{node.id}.sh" if self.case.relative else str(folder / f"{node.id}.sh")
        command = ["bash", script, FOLDER]
        own_disk = self.case.disk.startswith("state") or self.case.disk == "no-inodes"
        if "state" in self.case.way:
            state = (self.disk if own_disk else folder) / f"state-{node.name}"
            state.mkdir(mode=0o700)
            env = {**env, "PUNCH_STATE_DIR": str(state)}
        elif own_disk:
            bind = 'mount --bind "$0" /tmp && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", bind, str(self.disk), *command]
        with (folder / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )

        def run() -> Ended:
            status = process.wait()
            return Ended(node.name, status, (folder / "stderr").read_text(errors="replace"))

        self._follow(Running(node, lambda: process.pid), run)

    def _start_by_handler(self, node: Node, text: str, job_key: str) -> None:
        folder = f"truth-{self.nonce}"
        self.world.s3.put_object(
            Bucket=self.world.bucket, Key=script_key(folder, node.id), Body=text.encode()
        )
        event = Event((Task(node.id, folder),), self.nonce, job_key)
        launcher: Launcher
        if self.case.disk != "ok":
            launcher = self.world.small
        else:
            launcher = self.world.cloud.launchers["lambda" if self.case.way == "lambda" else "ec2"]

        def run() -> Ended:
            try:
                result = launcher.run(event)
            except PunchError as error:
                return Ended(node.name, 1, str(error))
            script = result.scripts[0]
            said = f"{script.stderr_tail}\nreturn code {script.returncode}: {script.cause}"
            return Ended(node.name, 0 if result.ok else script.returncode or 1, said)

        self._follow(Running(node, lambda: victims.shell_of(node.folder, victims.processes())), run)

    def _start_job(self, scripts: Scripts) -> None:
        folder = self.folder / "job"
        folder.mkdir()
        for node in scripts.nodes.values():
            shutil.copy(self.folder / node.name / f"{node.id}.sh", folder)
        runner = JobRunner(
            manifest.load(folder),
            RunRequest(timeout=DEADLINE - 5),
            self.world.cloud.launchers,
            self.world.s3,
            Config.from_env(),
            EventSink(lambda event: None),
        )

        def run() -> Ended:
            try:
                runner.run()
            except PunchError as error:
                return Ended("job", error.exit_code, str(error))
            return Ended("job", 0, "")

        struck = scripts.nodes[self.case.node]
        self._follow(
            Running(struck, lambda: victims.shell_of(struck.folder, victims.processes())), run
        )

    def _follow(self, running: Running, run: Callable[[], Ended]) -> None:
        self.nodes.append(running)

        def follow() -> None:
            try:
                running.ended = run()
            except Exception as error:  # the case shows it
                running.ended = Ended(running.node.name, 99, f"the suite itself: {error!r}")
            finally:
                with contextlib.suppress(OSError):  # given up by the case
                    os.write(self._tell, b".")

        threading.Thread(target=follow, daemon=True).start()

    # --- the blow -----------------------------------------------------------------------------

    def _watch(self, ask: int, go: int) -> bool:
        """Until every node has ended, or the time is up; strikes when the bomb asks for it."""
        deadline = time.monotonic() + DEADLINE
        poll = select.poll()
        poll.register(ask, select.POLLIN)
        poll.register(self._done, select.POLLIN)
        while not all(node.ended for node in self.nodes):
            ready = dict(poll.poll(LOOK * 1000))
            if ask in ready:
                os.read(ask, 100)
                self._strike(go)
            if self._done in ready:
                os.read(self._done, 100)
            if time.monotonic() > deadline:
                self._end_all()
                return False
        return True

    def _strike(self, go: int) -> None:
        case = self.case
        time.sleep(case.delay)
        if case.disk == "state-fills":
            fill(self.disk)
        if case.moment == "commit":
            os.write(go, b"\n")
        there = next(n for n in self.nodes if n.node.name == case.node)
        until = time.monotonic() + (20 * FACTOR if case.moment == "commit" else SEARCH)
        while not (pids := self._victims(there)) and time.monotonic() < until and not there.ended:
            time.sleep(0.003 if case.moment == "commit" else 0.03)
        name = "STOP" if case.signal == "STOP" else case.signal
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                self.killed += f"SIG{name} to {pid}: {' '.join(victims.words(pid))[:150]}\n"
                os.kill(pid, signal.Signals[f"SIG{name}"])
                self.struck = True
        if case.signal == "STOP" and pids:
            time.sleep(STANDSTILL)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        if case.moment != "commit":
            os.write(go, b"\n")

    def _victims(self, there: Running) -> list[int]:
        case, node = self.case, there.node
        if case.victim == "engine" and case.moment != "commit":
            return [self.world.engines[self.nonce]]
        shell = there.shell()
        if not shell:
            return []
        among = victims.processes()
        if case.by_hand and shell not in victims.of_run(self.nonce, among):
            return []  # it has ended, and its pid may be another's
        below = self._below(shell, among)
        engine_pid = self.world.engines.get(self.nonce, self.world.engine)
        if case.moment == "commit":
            committer = victims.client("punch-commit", [], below)
            if not committer:
                return []
            if case.victim == "engine":
                return [engine_pid]
        role, _, worker = case.victim.partition("-")
        match role:
            case "bash":
                found = shell
            case "group":
                return [shell, *below]
            case "committer" if worker:
                held = set(node.fifos)
                found = victims.committer_worker(engine_pid, self.folder / node.name, held, among)
            case "committer":
                found = committer
            case "stage":
                found = victims.stage(node.find("stage"), below)
            case "wrap":
                found = victims.client("r_wrap", [], below)
            case _:
                element = node.find(role)
                fifos = element.inputs + element.outputs
                if worker:
                    found = victims.worker(engine_pid, fifos[0], among)
                else:
                    found = victims.client(element.tool, fifos, below)
        return [found] if found else []

    # --- the end ------------------------------------------------------------------------------

    def _end_all(self) -> None:
        """The time is up: ends what runs, and remembers what that was."""
        among = victims.processes()
        for running in self.nodes:
            if running.ended or not (shell := running.shell()):
                continue
            pids = [shell, *self._below(shell, among)]
            for pid in pids:
                self.killed += f"still there: {pid} {' '.join(victims.words(pid))[:150]}\n"
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + AFTERMATH
        while any(n.ended is None for n in self.nodes) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _sweep(self) -> None:
        """By hand nobody ends what a killed shell or client leaves: waits for it, then does."""
        with contextlib.suppress(OSError):
            (self.folder / "struck").write_text(self.killed or "nothing was struck\n")
        if not self.case.by_hand:
            return
        deadline = time.monotonic() + AFTERMATH
        pause = 0.05
        while left := list(self._left()):
            if time.monotonic() > deadline:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    def _below(self, shell: int, among: list[victims.Process]) -> list[int]:
        """The processes of the script that this bash runs, and no others."""
        found = victims.below(shell, among)
        if self.case.by_hand:
            ours = set(victims.of_run(self.nonce, among))
            return [pid for pid in found if pid in ours]
        return found

    def _left(self) -> Iterator[int]:
        among = victims.processes()
        yield from victims.of_run(self.nonce, among)
        engine = self.world.engines.get(self.nonce, self.world.engine)
        for running in self.nodes:
            if pid := victims.worker_below(engine, running.node.folder, among):
                yield pid


def read_object(world: World, key: str) -> bytes | None:
    """The bytes of an object; None where there is none."""
    try:
        return bytes(world.s3.get_object(Bucket=world.bucket, Key=key)["Body"].read())
    except world.s3.exceptions.NoSuchKey:
        return None
