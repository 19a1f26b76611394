"""Where all cases live: one S3 and DynamoDB, one STUN server, one engine, the handlers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.jobs.launch import Ec2Launcher, Launcher
from punchlib.local.cloud import LocalCloud
from punchlib.runtime import engine_client
from tests.support.ministack import free_port
from tests.truth.case import SIZES
from tests.truth.scripts import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[2]
#: Bytes of a disk that is to be full.
DISK = 128 << 10
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class World:
    """The services.

    Attributes:
        root: folder for everything of the suite; not below /tmp, so every node sees it.
        top: the folder that holds runtime/ and aws/.
        cloud: the embedded cloud.
        small: an EC2 handler whose scripts' /tmp is a small disk of their own.
        engine: the process id of the engine.
        inputs: size -> the bytes of that input.
    """

    root: Path
    top: Path
    cloud: LocalCloud
    small: Launcher
    engine: int
    bucket: str
    s3: Any
    #: Runs that have an engine of their own.
    engines: dict[str, int] = field(default_factory=dict)
    inputs: dict[int, bytes] = field(default_factory=dict)
    #: Only one script at a time has a full disk.
    small_lock: threading.Lock = field(default_factory=threading.Lock)
    _expected: dict[tuple[int, str], bytes] = field(default_factory=dict)

    @contextlib.contextmanager
    def own_engine(self, run: str) -> Iterator[str]:
        """An engine for that run alone, which may be struck; yields its name."""
        name = f"punch-truth-{run}"
        command = [sys.executable, "-P", "-m", "punchlib.runtime.engine", name]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            deadline = time.monotonic() + 10
            while f"@{name}" not in Path("/proc/net/unix").read_text():
                assert time.monotonic() < deadline, "the engine did not start"
                time.sleep(0.02)
            self.engines[run] = process.pid
            yield name
        finally:
            process.kill()
            process.wait()

    def source(self, size: int) -> str:
        return f"truth-inputs/{size}"

    def expected(self, size: int, work: str) -> bytes:
        """What a plain run of the pipeline gives."""
        if (size, work) not in self._expected:
            done = subprocess.run(
                COMMANDS[work],
                input=self.inputs[size],
                capture_output=True,
                env={**os.environ, "LC_ALL": "C"},
                check=False,
            )
            self._expected[size, work] = done.stdout
        return self._expected[size, work]


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Starts everything; use it from the main thread."""
    # /tmp is what nodes have their own of.
    root = Path(tempfile.mkdtemp(prefix="punch-truth-", dir="/var/tmp"))
    shutil.copy(Path(__file__).parent / "bomb.sh", root / "bomb.sh")
    (root / "fifos").mkdir()
    (root / "cases").mkdir()
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_when_empty, root)
        stack.callback(_end_all_of, root)
        cloud = stack.enter_context(LocalCloud())
        config = Config.from_env()
        s3: Any = client("s3", config, max_pool_connections=64)
        there = World(
            root=root,
            top=Path(os.environ["PASH_TOP"]),
            cloud=cloud,
            small=stack.enter_context(_small_handler(root)),
            engine=_engine(os.environ[engine_client.ENGINE]),
            bucket=str(config.bucket),
            s3=s3,
        )
        for size in SIZES:
            there.inputs[size] = _text(size)
            s3.put_object(Bucket=there.bucket, Key=there.source(size), Body=there.inputs[size])
        yield there


def _text(size: int) -> bytes:
    """Lines of digits and letters, the last one without its newline where it is cut there."""
    rng = random.Random(size)
    lines = bytearray()
    while len(lines) < size:
        lines += b"%x %s\n" % (rng.getrandbits(40), b"z" * rng.randrange(60))
    return bytes(lines[:size])


def mount_disk(where: Path, options: str = "") -> None:
    """A small disk of its own at `where`."""
    where.mkdir(exist_ok=True)
    options = f"mode=755,size={DISK}{options}"
    if _libc.mount(b"none", os.fsencode(where), b"tmpfs", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), "mount (the suite needs root)", str(where))


def unmount_disk(where: Path) -> None:
    _libc.umount2(os.fsencode(where), _MNT_DETACH)


def fill(disk: Path) -> None:
    """Leaves no byte free on a small disk."""
    with contextlib.suppress(OSError), open(disk / ".full", "ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@contextlib.contextmanager
def _small_handler(root: Path) -> Iterator[Launcher]:
    disk = root / "small"
    mount_disk(disk)
    port = free_port()
    command = [sys.executable, "-P", "-m", "punchlib.cli.main", "ec2-handler"]
    pashlib = Path(os.environ["PASH_TOP"]).parent / "pashlib"
    with (root / "small.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--pashlib", str(pashlib)],
            env={**os.environ, "TMPDIR": str(disk)},
            stdin=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None and time.monotonic() < deadline, root / "small.log"
            time.sleep(0.05)
        yield Ec2Launcher(f"127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(20)
        unmount_disk(disk)


def _engine(name: str) -> int:
    """The pid of the engine that listens on that name."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for line in Path("/proc/net/unix").read_text().splitlines():
            words = line.split()
            if words[-1] == f"@{name}" and (pids := _holding(f"socket:[{words[6]}]")):
                return max(pids)  # its parent, which made the socket, may still hold it
        time.sleep(0.05)
    raise AssertionError("the cloud has no engine")


def _holding(link: str) -> list[int]:
    """The processes with that descriptor open, without ourselves."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(str(fd.readlink()) == link for fd in (folder / "fd").iterdir()):
                found.append(int(folder.name))
    return [pid for pid in found if pid != os.getpid()]


def _end_all_of(root: Path) -> None:
    """Ends whatever of the suite's scripts is left, also where the suite itself was stopped."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            there = (folder / "cwd").readlink().is_relative_to(root)
            if there or os.fsencode(root) in (folder / "cmdline").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)


def nonce() -> str:
    """What tells one run of a case from all others."""
    return secrets.token_hex(6)


def _remove_when_empty(root: Path) -> None:
    """Keeps what failing cases have left."""
    if not any((root / "cases").iterdir()):
        shutil.rmtree(root, ignore_errors=True)
