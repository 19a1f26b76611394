"""Real `pashlib` processes, with the node engine and without, as scripts start them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

import pytest

from punchlib.runtime import engine, markers
from punchlib.runtime.layout import write_pashlib
from tests.support.stream_rig import Rig

MODES = ("engine", "in-process")
SECURITIES = ("encrypted", "authenticated")
FACTOR = float(os.environ.get("PUNCH_TEST_TIME_FACTOR", "1"))
#: Within which both ends must have ended, from the fault on: some three times what they wait for at
#: most, so that a busy machine is no fault, and less than any time for the peer to register.
DEADLINE = 45.0 * FACTOR
#: Within which an end must say something, though its machine answers.
STALL = 10.0 * FACTOR
#: Seconds after which an end counts as hanging.
PATIENCE = 120.0 * FACTOR

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Where the ends live.

    Attributes:
        pashlib: the program.
        env: its environment.
        engine: the PUNCH_ENGINE of mode "engine".
    """

    pashlib: Path
    env: Mapping[str, str]
    engine: str

    def variables(self, mode: str) -> dict[str, str]:
        return {**self.env, "PUNCH_ENGINE": self.engine if mode == "engine" else ""}


@contextlib.contextmanager
def world(folder: Path, env: Mapping[str, str]) -> Iterator[World]:
    """Writes the program and runs an engine; `env` says where rendezvous and STUN are."""
    env = {
        "PATH": os.environ["PATH"],
        "PUNCH_TIMEOUT": str(PATIENCE / 2),
        "PUNCH_STALL_TIMEOUT": str(STALL),
        **env,
    }
    write_pashlib(folder / "pashlib")
    with engine.spawn(env) as name:
        yield World(folder / "pashlib", env, name)


def is_worker_of(process: Path, folder: Path) -> bool:
    """Whether that entry of /proc is the engine's fork for a caller in `folder`."""
    try:
        forked = b"punchlib.runtime.engine" in (process / "cmdline").read_bytes()
        return forked and (process / "cwd").readlink() == folder
    except OSError:
        return False


class End:
    """One pashlib on a node of its own: a working folder and a state folder.

    Attributes:
        folder: the working folder.
        said: its lines on stderr so far.
        ended_at: when the program and all that worked for it had ended (time.monotonic()).
    """

    def __init__(
        self,
        world: World,
        mode: str,
        folder: Path,
        arguments: Sequence[str],
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        heard: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`prefix` runs the program; `heard` is told each line that it says, in a thread."""
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.mode = mode
        self.said: list[str] = []
        self.ended_at = 0.0
        self._heard = heard
        self.process = subprocess.Popen(
            [*prefix, str(world.pashlib), *arguments],
            env={
                **world.variables(mode),
                "PUNCH_STATE_DIR": str(folder / "state"),
                **(env or {}),
            },
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def _watch(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            for line in stderr:
                self.said.append(line.decode().rstrip("\n"))
                self._heard(self.said[-1])
        self.process.wait()
        self.ended_at = time.monotonic()

    def wait(self, seconds: float = PATIENCE) -> int:
        """The exit code, once the program and all that worked for it have ended."""
        self._watching.join(seconds)
        assert self.ended_at, f"{self} did not end within {seconds:g} s"
        return self.process.returncode

    def worker(self) -> int:
        """The process that does the work: with the engine a fork of it, else the program."""
        if self.mode != "engine":
            return self.process.pid
        deadline = time.monotonic() + 10 * FACTOR
        while time.monotonic() < deadline:
            for process in Path("/proc").iterdir():
                if is_worker_of(process, self.folder):
                    return int(process.name)
            time.sleep(0.01)
        raise AssertionError(f"{self} is not run by the engine")

    @property
    def failures(self) -> list[str]:
        """Its node's failure markers: "component: reason", oldest first."""
        folder = self.folder / "state"
        found = markers.failures([str(folder)]) if folder.exists() else []
        return [f"{marker.component}: {marker.told}" for marker in found]

    def await_line(self, part: str, seconds: float = PATIENCE) -> None:
        """Until it has said a line that holds `part`."""
        deadline = time.monotonic() + seconds
        while not any(part in line for line in self.said):
            assert time.monotonic() < deadline and not self.ended_at, f"no {part!r}: {self}"
            time.sleep(0.005)

    def kill(self) -> None:
        if not self.ended_at and self.mode == "engine":
            with contextlib.suppress(AssertionError, ProcessLookupError):
                os.kill(self.worker(), signal.SIGKILL)
        self.process.kill()
        self._watching.join(10)

    def __repr__(self) -> str:
        said = "\n  ".join(self.said)
        return f"{self.folder.name} ({self.mode}, exit {self.process.poll()}):\n  {said}"


@dataclass(repr=False)
class Pair:
    """A sender and a receiver."""

    send: End
    recv: End

    @property
    def ended(self) -> bool:
        return bool(self.send.ended_at and self.recv.ended_at)

    def codes(self, seconds: float = PATIENCE) -> tuple[int, int]:
        """Both exit codes."""
        return self.send.wait(seconds), self.recv.wait(seconds)

    def assert_success(self) -> None:
        codes = self.codes()
        assert codes == (0, 0), self
        assert not self.send.failures + self.recv.failures

    def __repr__(self) -> str:
        return f"{self.send!r}\n{self.recv!r}"


@contextlib.contextmanager
def pair(
    world: World,
    mode: str,
    folder: Path,
    paths: Iterable[tuple[str, str]],
    *,
    sender: Mapping[str, str] | None = None,
    receiver: Mapping[str, str] | None = None,
    receiver_prefix: Sequence[str] = (),
    heard: Callable[[bool, str], None] = lambda sending, line: None,
    **env: str,
) -> Iterator[Pair]:
    """Two pashlibs with a stream for each (source, sink); killed when they are still there.

    Args:
        world: where they live.
        mode: one of `MODES`.
        folder: for both nodes' folders.
        paths: each stream's two FIFOs.
        sender, receiver: variables of one end.
        receiver_prefix: runs the receiver's program.
        heard: is told what they say: whether it was the sender, the line.
        **env: variables of both.
    """
    keys = [(uuid.uuid4().hex, *both) for both in paths]
    sends = [f"send*{key}*0*1*{source}" for key, source, _ in keys]
    receives = [f"recv*{key}*1*0*{sink}" for key, _, sink in keys]
    with contextlib.ExitStack() as stack:
        ends = []
        for name, arguments, own in (("send", sends, sender), ("recv", receives, receiver)):
            sending = name == "send"
            end = End(
                world,
                mode,
                folder / name,
                arguments,
                {**env, **(own or {})},
                prefix=() if sending else receiver_prefix,
                heard=lambda line, sending=sending: heard(sending, line),  # type: ignore[misc]
            )
            stack.callback(end.kill)
            ends.append(end)
        yield Pair(*ends)


@dataclass
class Gated(Rig):
    """A rig whose drain pauses at a byte.

    Attributes:
        pause_at: there.
        reached: it is there.
        go_on: lets it go on.
    """

    pause_at: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def drain(self) -> None:
        fd = os.open(self.sink, os.O_RDONLY)
        try:
            while piece := os.read(fd, 65536):
                self.got += piece
                if len(self.got) >= self.pause_at and not self.reached.is_set():
                    self.reached.set()
                    self.go_on.wait(PATIENCE)
        finally:
            os.close(fd)


@contextlib.contextmanager
def batch(
    request: pytest.FixtureRequest, name: str, work: Callable[[K], T], workers: int
) -> Iterator[dict[K, Future[T]]]:
    """Runs a module's cases side by side: most of their time is waiting.

    Only those that are asked for: the values that the chosen tests have for the parameter `name`.
    Each test then takes its own result, and its own exception.
    """
    cases: list[K] = [
        cast(K, item.callspec.params[name])
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.module is request.module
        and hasattr(item, "callspec")
        and name in item.callspec.params
    ]
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield {case: pool.submit(work, case) for case in cases}
        finally:
            pool.shutdown(cancel_futures=True)
