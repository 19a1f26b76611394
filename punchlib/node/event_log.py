"""The events of one event's scripts: taken from them as they come, logged, and kept for the result.

Each line of the log is one event as JSON, marked by its `"event"` and with its node and job
(docs/events.md): on AWS it is in CloudWatch a moment later. What is kept goes back to the runner.
A script may write what it likes into its own FIFO: what is no event of a fair size is dropped.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from punchlib.errors import escape
from punchlib.runtime.events import FIFO, LONGEST, encode

if TYPE_CHECKING:
    from punchlib.runtime.events import Value

VERSION = 1
#: Bytes of all events of a script: those kept for the result, those logged.
MOST_KEPT, MOST_LOGGED = 128 << 10, 1 << 20
#: Bytes of what the scripts wrote to stderr and stdout, of which the end is kept.
MOST_HEARD = 64 << 10
#: What is of use while a script runs, and to nobody afterwards.
_PASSING = ("stream.progress", "node.process", "node.fifo", "node.stock")
_NAMES = 100
_PIPE_SIZE = 1 << 20
_F_SETPIPE_SZ = 1031


class EventLog:
    """What happens on this node in the course of one event.

    Args:
        job: the job's id, for the log.
        log: takes each event, marked with its node and job; None: it goes to stderr.
    """

    def __init__(
        self, job: str = "", log: Callable[[Mapping[str, Any]], object] | None = None
    ) -> None:
        self._kept: list[dict[str, Any]] = []
        self._heard: deque[dict[str, Any]] = deque()
        self._hearing = 0
        self._job = job
        self._log = log or _log
        self._sizes = {"kept": 0, "logged": 0}
        self._dropped = 0
        self._lock = threading.Lock()

    @property
    def kept(self) -> list[dict[str, Any]]:
        """The events for the result, oldest first."""
        with self._lock:
            return sorted([*self._kept, *self._heard], key=lambda event: float(event["time"]))

    def hear(self, node: str, line: str) -> None:
        """Keeps a line of what a script wrote; that it is in the log, somebody else sees to."""
        event = json.loads(encode("log", time.time(), {"log.text": line}))
        with self._lock:
            self._heard.append({**event, "node": node})
            self._hearing += len(event["attributes"]["log.text"])
            while self._hearing > MOST_HEARD:
                self._hearing -= len(self._heard.popleft()["attributes"]["log.text"])

    def tell(self, node: str, event: str, attributes: Mapping[str, Value] | None = None) -> None:
        """Adds an event of the node's own.

        Args:
            node: the script's id.
            event: its name.
            attributes: what more there is to say.
        """
        self._take(node, encode(event, time.time(), attributes or {}))

    @contextlib.contextmanager
    def listening(self, node: str, state_dir: Path) -> Iterator[None]:
        """Takes what a script's processes tell, while the context lasts.

        Where no FIFO can be made (a full disk) nothing is told; the script runs all the same.

        Args:
            node: the script's id.
            state_dir: its state folder.
        """
        path = state_dir / FIFO
        try:
            os.mkfifo(path, 0o600)
            # For both: it must not read as ended whenever nobody happens to write.
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            yield
            return
        _enlarge(fd)
        end = os.urandom(16).hex().encode()  # a script cannot say it
        thread = threading.Thread(target=self._read, args=(node, fd, end), name=f"events {node}")
        thread.start()
        try:
            yield
        finally:
            os.write(fd, b"\n%s\n" % end)  # after all that was told
            thread.join()
            os.close(fd)
            self._say_dropped(node)

    def _read(self, node: str, fd: int, end: bytes) -> None:
        rest = b""
        while True:
            *lines, rest = (rest + os.read(fd, 65536)).split(b"\n")
            for line in lines:
                if line == end:
                    return
                self._take(node, line)
            rest = rest[-LONGEST:]

    def _take(self, node: str, line: bytes) -> None:
        event = _checked(line)
        if event is None:
            return
        event["node"] = node
        size = len(line)
        with self._lock:
            if self._sizes["logged"] + size <= MOST_LOGGED:
                self._sizes["logged"] += size
                self._log(event | ({"job": self._job} if self._job else {}))
            if event["event"] in _PASSING:
                return
            if self._sizes["kept"] + size > MOST_KEPT:
                self._dropped += 1
                return
            self._sizes["kept"] += size
            self._kept.append(event)

    def _say_dropped(self, node: str) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            if dropped:
                said = encode("events.dropped", time.time(), {"punch.count": dropped})
                self._kept.append({**json.loads(said), "node": node})


def _checked(line: bytes) -> dict[str, Any] | None:
    """An event, when it is one; what else stands in it is left out."""
    try:
        event = json.loads(line)
        name, at, attributes = event["event"], float(event["time"]), event["attributes"]
        if event["v"] != VERSION or not isinstance(name, str) or len(name) > _NAMES:
            return None
        if not all(isinstance(value, str | int | float) for value in attributes.values()):
            return None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return {"v": VERSION, "time": at, "event": name, "attributes": attributes}


def _log(event: Mapping[str, Any]) -> None:
    sys.stderr.write(escape(json.dumps(event)) + "\n")
    sys.stderr.flush()


def _enlarge(fd: int) -> None:
    """Room for a burst of many connections' events."""
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_SIZE)
