"""Starts the scripts of a case, in its way of running."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

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
from tests.truth.scripts import Node, Scripts
from tests.truth.verdict import FACTOR, Ended
from tests.truth.world import World, fill

#: Seconds within which a case must have ended.
DEADLINE = 120.0 * FACTOR
#: PUNCH_FAILURE_GRACE by hand.
GRACE = 2
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
class Starter:
    """Starts the nodes of one run.

    Attributes:
        nonce: of the run.
        folder: of the run.
        disk: where a small disk is, for a case that has one.
        tell: a pipe that gets a byte for each node that has ended.
        nodes: those that were started.
    """

    case: Case
    world: World
    nonce: str
    folder: Path
    disk: Path
    tell: int
    nodes: list[Running] = field(default_factory=list)

    def start(self, scripts: Scripts, stack: contextlib.ExitStack) -> None:
        """Starts them all.

        Args:
            scripts: theirs.
            stack: gets what is to be undone after the run.
        """
        texts = scripts.texts()
        for node in scripts.nodes.values():
            folder = self.folder / node.name
            folder.mkdir()
            (folder / f"{node.id}.sh").write_text(texts[node.name])
        if self.case.by_hand:
            env = self._environment(stack)
            # All folders first: they share a disk that the first node may fill.
            for node in scripts.nodes.values():
                if "state" in self.case.way:
                    self._state_of(node).mkdir(mode=0o700)
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

    @property
    def _own_disk(self) -> bool:
        return self.case.disk.startswith("state") or self.case.disk == "no-inodes"

    def _state_of(self, node: Node) -> Path:
        place = self.disk if self._own_disk else self.folder / node.name
        return place / f"state-{node.name}"

    def _start_by_hand(self, node: Node, env: dict[str, str]) -> None:
        folder = self.folder / node.name
        for name in ("runtime", "aws"):
            (folder / name).symlink_to(self.world.top / name)
        script = f"{node.id}.sh" if self.case.relative else str(folder / f"{node.id}.sh")
        command = ["bash", script, FOLDER]
        if "state" in self.case.way:
            env = {**env, "PUNCH_STATE_DIR": str(self._state_of(node))}
        elif self._own_disk:
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
                    os.write(self.tell, b".")

        threading.Thread(target=follow, daemon=True).start()
