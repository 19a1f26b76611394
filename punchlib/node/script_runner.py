"""Runs one script on this machine: a node run, as docs/architecture.md describes it.

The script gets a fresh folder under its /tmp (its text, its state folder, its TMPDIR) and a
process group of its own. Nothing of it is left when it has ended, whatever it did: handlers
are reused, and a stray process would write into the next script's FIFOs.

When the job runner no longer waits for the result, the node stops (punchlib.node.run_watch).
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from punchlib.aws.errors import is_transient
from punchlib.config import Config
from punchlib.errors import PunchError, UsageError
from punchlib.node import memory, sandbox, scratch, stock
from punchlib.node.event_log import EventLog
from punchlib.node.protocol import Ended, Event, ScriptResult, Task, script_key
from punchlib.node.run_watch import RunWatch, is_missing
from punchlib.node.stderr_tail import StderrTail
from punchlib.runtime import commit, markers, pending, state
from punchlib.runtime.markers import Marker

#: Seconds between two looks whether the script must stop.
WATCH = 0.5
#: Seconds between two looks whether the run was given up.
CANCEL_POLL = 3.0
#: Seconds that the wait script gives the other stages after one has failed.
FAILURE_GRACE = "3"
#: Bytes of a script. Who may write the bucket must not fill the node's memory.
MAX_SCRIPT = 16 << 20
#: Seconds from SIGTERM to SIGKILL: enough for an upload to be aborted.
TERM_GRACE = 2.0
#: Generated scripts of one job, and re-runs, make the same folders.
_FOLDERS = re.compile(rb"/tmp/pash_[^/\s\"']+/[0-9a-f]{8,}")


@dataclass(frozen=True)
class Stop:
    """Why a script must end before it has ended by itself."""

    ended: Ended
    note: str


STOPPED = Stop(Ended.CANCELLED, "the handler was stopped")
OUT_OF_TIME = Stop(Ended.TIMEOUT, "the node is out of time; its script was stopped")
RUNNER_LEFT = Stop(Ended.CANCELLED, "the run was given up: its runner has hung up")


class ScriptRunner:
    """Runs scripts, one or several at a time (one per thread).

    Args:
        s3: an S3 client.
        config: bucket and region.
        workdir: the folder that holds runtime/ and aws/.
        view: what each script sees; its `tmp` is the folder in which their /tmps are made. None
            runs scripts in this process's own /tmp (on Lambda it is private).
    """

    def __init__(
        self, s3: Any, config: Config, workdir: Path, view: sandbox.View | None = None
    ) -> None:
        self._s3 = s3
        self._config = config
        self._workdir = workdir
        self._view = view
        self._stopping = threading.Event()
        self._claimed: set[bytes] = set()
        self._claims = threading.Lock()

    def stop(self) -> None:
        """Ends all scripts that run; each still gives its result."""
        self._stopping.set()

    def run(
        self,
        task: Task,
        event: Event,
        log: EventLog,
        deadline: float | None = None,
        caller: int | None = None,
    ) -> ScriptResult:
        """Fetches and runs one script.

        Args:
            task: which script.
            event: the event it came in.
            log: takes what its processes tell.
            deadline: `time.monotonic()` at which the script must have ended; None: never.
            caller: a connection; when its other end closes it, the script is stopped.

        Returns:
            How it ended. Everything that goes wrong is in it; nothing is raised but bugs.
        """
        started = time.monotonic()

        def ended(returncode: int, **facts: Any) -> ScriptResult:
            ms = round((time.monotonic() - started) * 1000)
            return ScriptResult(task.id, task.folder_id, returncode, ms, **facts)

        try:
            text = self._fetch(task)
            log.tell(task.id, "script.fetched", {"punch.bytes": len(text)})
        except PunchError as error:
            facts = {"note": error.message, "may_pass": error.may_pass}
            return ended(1, **facts, ended=Ended.LOST)
        claimed = self._claim(text)
        if claimed is None:
            note = "a script that uses the same folder in /tmp is still running here"
            return ended(1, note=note, ended=Ended.LOST)
        try:
            with self._folder() as (outside, inside):
                (outside / "tmp").mkdir(mode=0o700)
                state.prepare_folder(str(outside / "state"))
                (outside / "script.sh").write_bytes(text)
                tail = StderrTail(task.id, partial(log.hear, task.id))
                tmp = outside.parent if self._view else Path("/tmp")
                take_stock = partial(stock.tell, log, task.id, str(inside / "state"), tmp)
                kills = memory.oom_kills()
                with log.listening(task.id, outside / "state"):
                    log.tell(task.id, "script.started")
                    stop, code, used = self._execute(
                        ["bash", str(inside / "script.sh"), task.folder_id, *task.args],
                        self._environment(task, event, inside),
                        outside.parent,
                        tail,
                        self._watch(task, event, deadline, take_stock),
                        caller,
                    )
                log.tell(task.id, "script.ended", {"process.exit.code": code, **used})
                # Of one that went well no stage was killed, whoever else was.
                killed = memory.killed_note(kills)
                result = partial(ended, code, stderr_tail=tail.text())
                return self._settle(result, outside / "state", event, code, stop, killed)
        except OSError as error:
            return ended(1, note=f"cannot run the script: {error}", ended=Ended.LOST)
        finally:
            self._claimed -= claimed

    @contextlib.contextmanager
    def _folder(self) -> Iterator[tuple[Path, Path]]:
        """A folder for one run: its name for us, and its name for the script."""
        if not self._view:
            with scratch.folder("punch-run") as folder:
                yield folder, folder
            return
        # In a /tmp of the script's own; what is there when this node is killed goes with our root.
        name = f"punch-run-{os.urandom(8).hex()}"
        tmp = Path(self._view.tmp) / name
        try:
            (tmp / name).mkdir(mode=0o700, parents=True)
            yield tmp / name, Path("/tmp") / name
        finally:
            shutil.rmtree(tmp, ignore_errors=True)

    def _claim(self, text: bytes) -> set[bytes] | None:
        """Reserves the folders that a script makes in a shared /tmp; None when one is taken."""
        folders = set() if self._view else set(_FOLDERS.findall(text))
        with self._claims:
            if folders & self._claimed:
                return None
            self._claimed |= folders
        return folders

    def _fetch(self, task: Task) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError

        bucket = self._config.bucket
        if not bucket:
            raise UsageError("AWS_BUCKET is not set on the node: it has no scripts to run")
        key = script_key(task.folder_id, task.id)
        try:
            found = self._s3.get_object(Bucket=bucket, Key=key)
            with found["Body"] as body:
                if found["ContentLength"] > MAX_SCRIPT:
                    raise UsageError(
                        f"s3://{bucket}/{key} has {found['ContentLength']} bytes: no script has"
                    )
                return bytes(body.read())
        except ClientError as error:
            if is_missing(error):
                raise UsageError(f"there is no script s3://{bucket}/{key}") from None
            raise _unfetched(f"s3://{bucket}/{key}", error) from error
        except BotoCoreError as error:
            raise _unfetched(f"s3://{bucket}/{key}", error) from error

    def _environment(self, task: Task, event: Event, inside: Path) -> dict[str, str]:
        env = {**os.environ, **event.env}
        given = {
            "PASH_JOB_ID": event.job_id,
            "PUNCH_JOB_KEY": event.job_key,
            "PUNCH_NODE": task.id,
            "PUNCH_COMMIT": event.commit,
            "PUNCH_STATE_DIR": str(inside / "state"),
            "TMPDIR": str(inside / "tmp"),
            # boto3 itself reads only this one.
            "AWS_DEFAULT_REGION": self._config.region,
        }
        for name, value in given.items():
            env.pop(name, None)
            if value:
                env[name] = value
        env.setdefault("PASH_TOP", str(self._workdir))
        # Peers wait on other machines: a script with a failed stage ends soon.
        env.setdefault("PUNCH_FAILURE_GRACE", FAILURE_GRACE)
        return env

    def _execute(
        self,
        cmd: list[str],
        env: dict[str, str],
        tmp: Path,
        tail: StderrTail,
        watch: Callable[[], Stop | None],
        caller: int | None,
    ) -> tuple[Stop | None, int, dict[str, float]]:
        if self._view:
            cmd = sandbox.command(cmd, self._view.with_tmp(str(tmp)))
        chatter = StderrTail(tail.name, tail.heard)
        process = None
        try:
            process = subprocess.Popen(
                cmd,
                cwd=self._workdir,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=chatter.writer(),
                stderr=tail.writer(),
                start_new_session=True,
            )
            tail.start()
            chatter.start()
            stop = _wait(process.pid, watch, caller)
            code, used = _terminate(process) if stop else _reap(process)
            if not self._view:  # else the sandbox does it, which alone knows their names
                state.dismiss(env["PUNCH_STATE_DIR"])
        finally:
            if process:
                _kill_group(process.pid)
                _kill_strays(env["PUNCH_STATE_DIR"])
            chatter.finish()
            tail.finish()
        return stop, code if code >= 0 else 128 - code, used

    def _watch(
        self,
        task: Task,
        event: Event,
        deadline: float | None,
        take_stock: Callable[[str], None],
    ) -> Callable[[], Stop | None]:
        """A function that says why the script must stop now; None while it may go on."""
        next_look = time.monotonic() + CANCEL_POLL
        run = RunWatch(self._s3, self._config.bucket or "", task, event)
        answered = ""

        def watch() -> Stop | None:
            nonlocal next_look, answered
            now = time.monotonic()
            if self._stopping.is_set():
                return STOPPED
            if deadline is not None and now >= deadline:
                return OUT_OF_TIME
            if event.commit == "runner" and now >= next_look:
                next_look = now + CANCEL_POLL
                if why := run.given_up():
                    return Stop(Ended.CANCELLED, why)
                if run.asked and run.asked != answered:
                    answered = run.asked
                    take_stock(answered)
            return None

        return watch

    def _settle(
        self,
        ended: Callable[..., ScriptResult],
        folder: Path,
        event: Event,
        code: int,
        stop: Stop | None,
        killed: str,
    ) -> ScriptResult:
        """Completes, aborts or hands on the uploads, as the script ended."""
        failures = tuple(markers.failures([str(folder)]))
        try:
            uploads = pending.uploads(str(folder))
        except (OSError, ValueError) as error:
            uploads = []
            failures += (Marker(markers.NOBODY, f"what waits to be completed is lost: {error}"),)

        def result(**facts: Any) -> ScriptResult:
            if stop:
                facts |= {"note": stop.note, "ended": stop.ended}
            elif not well and killed:
                facts |= {"note": killed, "ended": Ended.FAILED}
            return ended(**facts)

        well = not (code or failures or stop)
        if well and event.commit == "runner":
            return result(pending=tuple(uploads))
        try:
            if well:
                commit.complete(uploads, self._s3)
            else:
                commit.abort(uploads, self._s3)
        except PunchError as error:
            failures += (Marker("s3-put-object", error.message),)
        return result(failures=failures)


def _unfetched(script: str, error: Exception) -> PunchError:
    ours = PunchError(f"cannot fetch {script}: {error}")
    ours.may_pass = is_transient(error)
    return ours


def _wait(pid: int, watch: Callable[[], Stop | None], caller: int | None) -> Stop | None:
    """Until the process has ended, or must; then why.

    Popen.wait(timeout) would wake up twenty times a second.
    """
    with open(os.pidfd_open(pid), "rb", buffering=0) as ended:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        if caller is not None:
            poll.register(caller, select.POLLRDHUP)
        while True:
            ready = dict(poll.poll(WATCH * 1000))
            if ended.fileno() in ready:
                return None
            if ready:
                return RUNNER_LEFT
            if stop := watch():
                return stop


def _terminate(process: subprocess.Popen[bytes]) -> tuple[int, dict[str, float]]:
    """SIGTERM to all, then SIGKILL: an upload that hears the first one aborts itself."""
    _kill_group(process.pid, signal.SIGTERM)
    with open(os.pidfd_open(process.pid), "rb", buffering=0) as ended:
        if not select.select([ended], [], [], TERM_GRACE)[0]:
            _kill_group(process.pid)
    return _reap(process)


def _reap(process: subprocess.Popen[bytes]) -> tuple[int, dict[str, float]]:
    """Waits for its end; its exit status, and what it and those whom it waited for took."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    taken = {
        "process.cpu.time": used.ru_utime + used.ru_stime,
        "process.memory.peak": used.ru_maxrss << 10,  # of the largest of them
    }
    return process.returncode, taken


def _kill_group(pgid: int, signum: signal.Signals = signal.SIGKILL) -> None:
    try:
        os.killpg(pgid, signum)
    except ProcessLookupError:
        return  # all gone


def _kill_strays(state_dir: str) -> None:
    """Kills what left the process group; it still has our state folder in its environment."""
    wanted = f"PUNCH_STATE_DIR={state_dir}".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)
        except OSError:
            continue  # it ended meanwhile, or is not ours
