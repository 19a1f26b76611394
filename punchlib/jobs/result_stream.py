"""The result of a job as a stream: whoever runs the job is the last receiver.

`[result]` in `job.toml` names a connection that a script sends to. Its other end is here, a
`pashlib recv` like any other, with what it gets going to stdout or into a file. Nothing of the
job's code runs on this machine. To the runner it is a node of its own kind, `here`.

A file appears when the whole job has gone well; what has gone to stdout cannot be taken back, so
a job that fails after that is not run again.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from punchlib.errors import StorageError
from punchlib.jobs.launch import NodeLost
from punchlib.jobs.new_file import NewFile
from punchlib.jobs.storage import STDOUT
from punchlib.node import scratch, tethered
from punchlib.node.event_log import EventLog
from punchlib.node.protocol import Clock, Ended, Event, Result, ScriptResult
from punchlib.node.stderr_tail import TAIL
from punchlib.runtime import markers, state

#: The id of its node.
NODE = "result"
#: As the status of who writes into a pipe that nobody reads: 128 + SIGPIPE.
READER_GONE = 141
_BLOCK = 1 << 20
#: Seconds from SIGTERM to SIGKILL: it says goodbye to its peer.
_TERM_GRACE = 3.0


def receiving(connection: str, fifo: str) -> str:
    """The argument of pashlib that receives a result."""
    return f"recv*{connection}*1*0*{fifo}"


class ResultStream:
    """The launcher of the node `here`.

    Args:
        connection: the key of the connection.
        target: the file to write, or `STDOUT`.

    Attributes:
        watch: is told each of its events, as it happens: nobody reads its log.
        size: bytes that have come.
        reader_gone: nobody reads our stdout any more.
    """

    def __init__(self, connection: str, target: Path) -> None:
        self._connection = connection
        self._target = target
        self._file: NewFile | None = None
        self._error: OSError | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self.watch: Callable[[Mapping[str, Any]], object] = len
        self.size = 0
        self.reader_gone = False

    @property
    def spent(self) -> bool:
        """Something is out that cannot be taken back."""
        return self._target == STDOUT and self.size > 0

    def run(self, event: Event) -> Result:
        received = time.time()
        log = EventLog(event.job_id, log=lambda told: self.watch(told))
        log.tell(NODE, "node.invoked")
        try:
            with scratch.folder("punch-result") as folder:
                script = self._receive(event, folder, log)
        except OSError as error:
            raise NodeLost(f"the result cannot be received: {error}") from error
        if self._error:
            name = "stdout" if self._target == STDOUT else self._target
            raise NodeLost(f"{name} cannot be written: {self._error.strerror}")
        log.tell(NODE, "node.ended", {"punch.ended": script.ended.value})
        return Result((script,), False, tuple(log.kept), Clock(received, time.time()))

    def stop(self) -> None:
        """Ends it."""
        self._stopping = True
        if self._process:
            self._process.terminate()

    def keep(self) -> dict[str, object]:
        """Gives the file its name: the job has gone well.

        Returns:
            What is told of an output in a report.

        Raises:
            StorageError: it cannot.
        """
        if self._file:
            try:
                self._file.keep()
            except OSError as error:
                raise StorageError(f"{self._target} cannot be written: {error.strerror}") from error
        told: dict[str, object] = {"file": str(self._target), "bytes": self.size}
        return {**told, "reader_gone": True} if self.reader_gone else told

    def drop(self) -> None:
        """Takes the file away, unless it is kept."""
        if self._file:
            self._file.drop()

    def _receive(self, event: Event, folder: Path, log: EventLog) -> ScriptResult:
        began = time.monotonic()
        fifo, own, stderr = folder / "fifo", folder / "state", folder / "stderr"
        os.mkfifo(fifo, 0o600)
        state.prepare_folder(str(own))
        # A reader from the start, and a writer until the end: it ends when we say so.
        source = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        hold = os.open(fifo, os.O_WRONLY | os.O_CLOEXEC)
        os.set_blocking(source, True)
        copy = threading.Thread(target=self._copy, args=(source,), name="result", daemon=True)
        copy.start()
        try:
            with log.listening(NODE, own), stderr.open("wb") as said:
                code = self._run(event, fifo, own, said.fileno())
        finally:
            os.close(hold)
            copy.join()
        failures = tuple(markers.failures([str(own)]))
        if self.reader_gone:
            code, failures = 0, ()
        return ScriptResult(
            NODE,
            event.tasks[0].folder_id,
            code,
            round((time.monotonic() - began) * 1000),
            stderr.read_bytes()[-TAIL:].decode(errors="replace"),
            failures,
            ended=Ended.CANCELLED if self._stopping else None,  # type: ignore[arg-type]
        )

    def _run(self, event: Event, fifo: Path, own: Path, stderr: int) -> int:
        ours = {
            "PASH_JOB_ID": event.job_id,
            "PUNCH_JOB_KEY": event.job_key,
            "PUNCH_NODE": NODE,
            "PUNCH_STATE_DIR": str(own),
        }
        command = [sys.executable, "-P", "-m", tethered.__name__, str(os.getpid())]
        self._process = subprocess.Popen(
            [*command, receiving(self._connection, str(fifo))],
            env={**os.environ, **event.env, **ours},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
        if self._stopping:  # meanwhile
            self._process.terminate()
        try:
            code = self._process.wait(event.timeout or None)
        except subprocess.TimeoutExpired:
            self._stopping = True
            self._process.terminate()
            code = _waited(self._process)
        return code if code >= 0 else 128 - code

    def _copy(self, source: int) -> None:
        """From the FIFO to where it goes, until it ends or nobody wants more."""
        try:
            with open(source, "rb", buffering=0) as pipe:
                out = self._open()
                while block := pipe.read(_BLOCK):
                    left = memoryview(block)
                    while left:
                        written = out.write(left)
                        self.size += written
                        left = left[written:]
        except BrokenPipeError:
            self.reader_gone = True
        except OSError as error:
            self._error = error
        except ValueError:  # nobody waits any more, and the file was dropped
            return

    def _open(self) -> io.FileIO:
        if self._target == STDOUT:
            return io.FileIO(1, "w", closefd=False)
        self._file = NewFile(self._target)
        return self._file.out


def _waited(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(_TERM_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
