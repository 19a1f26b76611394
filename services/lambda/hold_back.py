#!/usr/bin/env python3
"""Stands between the runtime interface emulator and a runtime, and holds the worker back.

    hold_back.py COMMAND…      COMMAND asks $AWS_LAMBDA_RUNTIME_API for events

EMULATED_FREEZE=0.05   seconds after an event's end until all processes of the worker stand still,
                       until the next event (AWS: "execution environment lifecycle"); empty: never
EMULATED_CPUS=0.5      the share of a processor that they have, in slices of 20 ms; from 1 on: all
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path

#: Seconds of a slice of the processor's time.
SLICE = 0.02
_NEXT = b"/runtime/invocation/next "
_SET_CHILD_SUBREAPER = 36


class Worker:
    """All that the command has started, whoever its parent is now."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        # Orphans become our children, and so stay the worker's.
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._main = os.spawnvpe(os.P_NOWAIT, command[0], command, env)
        self._stopped: set[int] = set()

    def stop(self) -> None:
        while new := self._descendants() - self._stopped:  # they may fork until they are stopped
            for pid in new:
                _tell(pid, signal.SIGSTOP)
            self._stopped |= new

    def end(self, number: int, _: object) -> None:
        """A signal for us is the command's, and it must run to hear it."""
        self.go_on()
        _tell(self._main, number)

    def go_on(self) -> None:
        for pid in self._stopped:
            _tell(pid, signal.SIGCONT)
        self._stopped.clear()

    def ended(self) -> int | None:
        """The command's exit status, as a shell shows it; None while it runs.

        What it leaves behind ends with it.
        """
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._main:
                    for pid in self._descendants():
                        _tell(pid, signal.SIGKILL)
                    code = os.waitstatus_to_exitcode(found[1])
                    return code if code >= 0 else 128 - code
        return None

    def _descendants(self) -> set[int]:
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, ValueError):
                    # The name in parentheses may hold anything, a parenthesis too.
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    parents[int(entry.name)] = int(fields[1])
        ours, before = {os.getpid()}, 0
        while len(ours) > before:
            before = len(ours)
            ours |= {pid for pid, parent in parents.items() if parent in ours}
        return ours - {os.getpid()}


def _tell(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Runtime:
    """Passes the runtime API on, byte for byte, and knows whether an event is waited for."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.partition(":")
        self._upstream = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "%s:%d" % self._listener.getsockname()  # noqa: UP031 (a tuple)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        #: `time.monotonic()` since when the worker waits for an event; None: it has one.
        self.idle_since: float | None = None

    def step(self, patience: float) -> None:
        """Passes on what comes within so many seconds."""
        for key, _ in self._selector.select(patience):
            if key.fileobj is self._listener:
                theirs, _ = self._listener.accept()
                ours = socket.create_connection(self._upstream)
                self._selector.register(theirs, selectors.EVENT_READ, (ours, True))
                self._selector.register(ours, selectors.EVENT_READ, (theirs, False))
                continue
            assert isinstance(key.fileobj, socket.socket)
            self._pass_on(key.fileobj, *key.data)

    def _pass_on(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = source.recv(65536)
        if asks and data.startswith(b"GET ") and _NEXT in data:
            self.idle_since = time.monotonic()
        elif data and not asks:
            self.idle_since = None
        with contextlib.suppress(OSError):
            target.sendall(data)
        if not data:
            for each in (source, target):
                self._selector.unregister(each)
                each.close()


def main(command: list[str]) -> int:
    freeze = os.environ.pop("EMULATED_FREEZE", "")
    share = min(float(os.environ.pop("EMULATED_CPUS", "") or 1), 1.0)
    runtime = Runtime(os.environ["AWS_LAMBDA_RUNTIME_API"])
    worker = Worker(command, {**os.environ, "AWS_LAMBDA_RUNTIME_API": runtime.address})
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, worker.end)
    frozen = False
    while (code := worker.ended()) is None:
        idle = runtime.idle_since
        wanted = bool(freeze) and idle is not None and time.monotonic() - idle >= float(freeze)
        if wanted and not frozen:
            worker.stop()
        elif frozen and not wanted:
            worker.go_on()
        frozen = wanted
        if frozen or share == 1.0:
            soon = bool(freeze) and idle is not None and not frozen
            runtime.step(float(freeze) if soon else 0.5)
            continue
        runtime.step(0)
        time.sleep(SLICE * share)
        worker.stop()
        time.sleep(SLICE * (1 - share))
        worker.go_on()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
