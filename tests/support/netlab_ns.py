"""Linux network namespaces with unique names, and a sweep of those that a dead lab left behind.

A name is `plab-<pid>-<random>-<n>-<role>`: the process that owns it, a counter, and what it is. The
owner holds a lock while it lives: its pid alone is reused, and means nothing to who lives in
another process namespace. Several labs run side by side; nothing touches the machine's own network
namespace, so the lab's address ranges cannot collide with the machine's.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

PREFIX = "plab"
RUN = Path("/run/netns")
LOCKS = Path("/run/plab")

_counter = itertools.count()


class LabError(RuntimeError):
    """A part of the lab could not be built."""


@functools.cache
def _own_prefix() -> str:
    """The beginning of our names; we hold its lock for as long as we live."""
    prefix = f"{PREFIX}-{os.getpid()}-{secrets.token_hex(3)}"
    LOCKS.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(LOCKS / prefix, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return prefix


def _owner_is_dead(name: str) -> bool:
    lock = LOCKS / "-".join(name.split("-")[:3])
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.unlink()
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


def sweep() -> list[str]:
    """Removes the namespaces, and the processes in them, of labs whose process is gone."""
    removed = []
    for path in RUN.glob(f"{PREFIX}-*-*-*") if RUN.is_dir() else ():
        if _owner_is_dead(path.name):
            Namespace(path.name).close()
            removed.append(path.name)
    return removed


def _run(argv: Sequence[str], stdin: str = "") -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip()}\n{stdin}")
    return done.stdout


class Namespace:
    """One network namespace and the processes that this lab started in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._processes: list[subprocess.Popen[bytes]] = []

    @classmethod
    def create(cls, role: str) -> Namespace:
        self = cls(f"{_own_prefix()}-{next(_counter)}-{role}")
        _run(["ip", "netns", "add", self.name])
        self.ip("link set lo up")
        return self

    @property
    def path(self) -> str:
        return str(RUN / self.name)

    def enter(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` here; it dies with the thread that starts it."""
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net={self.path}", *argv]

    def run(self, argv: Sequence[str], stdin: str = "") -> str:
        """Runs a command to its end and returns its output.

        Raises:
            LabError: it failed; the message holds what it said.
        """
        return _run(["nsenter", f"--net={self.path}", *argv], stdin)

    def ip(self, *commands: str) -> None:
        """Runs `ip` commands as one batch."""
        _run(["ip", "-n", self.name, "-batch", "-"], "\n".join(commands) + "\n")

    def nft(self, ruleset: str) -> None:
        self.run(["nft", "-f", "-"], ruleset)

    def sysctl(self, **settings: str | int) -> None:
        """Sets `net.ipv4.*`; a double underscore stands for a dot."""
        pairs = [f"net.ipv4.{k.replace('__', '.')}={v}" for k, v in settings.items()]
        self.run(["sysctl", "-q", "-w", *pairs])

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        cwd: str | Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Starts a process here; it is killed when the namespace is closed."""
        process = subprocess.Popen(
            self.enter(argv), env=env, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd
        )
        self._processes.append(process)
        return process

    def reap(self) -> None:
        """Kills and reaps what was started here with `popen`."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    # What could not be flushed to a killed process is lost, as intended.
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        self._processes.clear()

    def close(self) -> None:
        """Ends every process in the namespace and removes it."""
        self.reap()
        deadline = time.monotonic() + 2
        # Grandchildren, and whatever runs in the namespace of a lab that was killed.
        while pids := _run(["ip", "netns", "pids", self.name]).split():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            if time.monotonic() > deadline:
                raise LabError(f"processes {pids} in {self.name} do not die")
            time.sleep(0.01)
        _run(["ip", "netns", "del", self.name])


@contextlib.contextmanager
def namespace(role: str) -> Iterator[Namespace]:
    """A namespace for the length of a `with` block."""
    ns = Namespace.create(role)
    try:
        yield ns
    finally:
        ns.close()


def veth(left: Namespace, left_name: str, right: Namespace, right_name: str) -> None:
    """Joins two namespaces by a cable; both ends are up."""
    left.ip(
        f"link add {left_name} type veth peer name {right_name} netns {right.name}",
        f"link set {left_name} up",
    )
    right.ip(f"link set {right_name} up")
