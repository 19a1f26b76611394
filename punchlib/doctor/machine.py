"""What a machine must have for scripts, streams and the embedded cloud.

Each check really does the thing where that costs nothing – makes a FIFO, enlarges a pipe, writes
into /tmp – and says the limit where it does not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import punchlib
from punchlib.doctor.finding import Finding, fail, looked_at, ok, warn
from punchlib.net import descriptors
from punchlib.runtime import engine_client, pipes

MB = 1_000_000
#: Connections of one `pashlib` that a wide job may well have; Lambda's 1,024 files are enough for
#: 298 (`net.descriptors`).
WIDE = 64
#: A script starts some dozen processes; a machine that runs a wide job, hundreds.
FEW_PROCESSES, NO_PROCESSES = 256, 32
#: Bytes. An end of one stream takes 27 MB, the engine with boto3 some 80 MB.
LITTLE_MEMORY, NO_MEMORY = 512 * MB, 128 * MB
#: Bytes: `dgsh-tee` puts there what its slower reader has not read.
LITTLE_ROOM, NO_ROOM = 256 * MB, 1 * MB
FEW_FILES = 1000
#: Seconds for the engine to serve a call; it takes some 20 ms.
ENGINE_TIME = 10.0


def examine() -> Iterator[Finding]:
    """Looks at this machine, in the order in which things build upon each other."""
    for name, look in (
        ("system", system),
        ("open files", open_files),
        ("processes", processes),
        ("memory", memory),
        ("/tmp", room_in_tmp),
        ("FIFOs", fifos),
        ("pipes", large_pipes),
        ("engine", engine),
    ):
        yield looked_at(name, look)


def system() -> Finding:
    """Linux, Python, and ourselves."""
    us = (
        f"punchlib {punchlib.__version__}, Python {platform.python_version()},"
        f" {platform.system()} {platform.release()} on {platform.machine()},"
        f" {len(_processors())} processors"
    )
    if sys.platform != "linux":
        return fail("system", f"{us}: only Linux has what is needed", "use a Linux machine")
    return ok("system", us)


def _processors() -> set[int]:
    return os.sched_getaffinity(0)


def open_files() -> Finding:
    """RLIMIT_NOFILE, hard (`pashlib` raises its own to that), in connections."""
    name = "open files"
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        return ok(name, "no limit")
    # It looks downwards from the limit, and millions are as good as thousands.
    most = descriptors.most_connections(min(hard, 65_536))
    many = f"{most:,}{' or more' if hard > 65_536 else ''}"
    what = f"{hard:,} a process, enough for {many} connections of one pashlib"
    if not most:
        what = f"{hard:,} a process: too few for a single connection"
        return fail(name, what, f"ulimit -Hn {descriptors.needed(WIDE)}")
    if most < WIDE:
        return warn(name, what, f"for wider jobs: ulimit -Hn {descriptors.needed(WIDE)}")
    return ok(name, what)


def processes() -> Finding:
    """How many more may be started: of the user (RLIMIT_NPROC, not for root) and of the cgroup."""
    limits = []
    own = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if own != resource.RLIM_INFINITY and os.getuid():
        limits.append((own - _of_our_user(), f"this user may have {own:,}"))
    if (most := _cgroup("pids.max")) is not None:
        limits.append((most - (_cgroup("pids.current") or 0), f"its control group {most:,}"))
    if not limits:
        return ok("processes", "no limit but the machine's own")
    left, whose = min(limits)
    what = f"{max(left, 0):,} more can be started: {whose}"
    step = "end some, or raise the limit: ulimit -u, pids.max"
    if left < NO_PROCESSES:
        return fail("processes", what, step)
    return warn("processes", what, step) if left < FEW_PROCESSES else ok("processes", what)


def _of_our_user() -> int:
    """Its threads: the kernel counts those."""
    count = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                if folder.stat().st_uid == os.getuid():
                    count += len(list((folder / "task").iterdir()))
    return count


def _cgroup(file: str) -> int | None:
    """A number of our control group (version 2); None where there is none, or no limit."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        path = Path("/proc/self/cgroup").read_text().split("0::", 1)[1].splitlines()[0]
        for folder in (f"/sys/fs/cgroup{path}", "/sys/fs/cgroup"):
            with contextlib.suppress(FileNotFoundError):
                return int((Path(folder) / file).read_text())
    return None


def memory() -> Finding:
    """What can be had now, of the machine and of the control group."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if line
    )
    left = int(fields["MemAvailable"].split()[0]) * 1024
    whose = f"of {int(fields['MemTotal'].split()[0]) * 1024 / MB:,.0f} MB"
    limit = _cgroup("memory.max")
    if limit is not None and limit - (used := _cgroup("memory.current") or 0) < left:
        left, whose = max(0, limit - used), f"of its control group's {limit / MB:,.0f} MB"
    what = f"{left / MB:,.0f} MB free {whose}; an end of one stream takes 27 MB"
    step = "give the machine or the function more memory, or run fewer nodes on it"
    if left < NO_MEMORY:
        return fail("memory", what, step)
    return warn("memory", what, step) if left < LITTLE_MEMORY else ok("memory", what)


def room_in_tmp() -> Finding:
    """Whether /tmp (TMPDIR) can be written, and how much."""
    # Not `tempfile.gettempdir()`, which takes another folder where this one is full.
    folder = os.environ.get("TMPDIR") or "/tmp"
    try:
        room, files = shutil.disk_usage(folder).free, os.statvfs(folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(64 * 1024))
            file.flush()
    except OSError as error:
        what = f"{folder} cannot be written: {error.strerror or error}"
        return fail("/tmp", what, f"make room in {folder}, or set TMPDIR to a folder of your own")
    what = f"{room / MB:,.0f} MB free in {folder}, where dgsh-tee keeps what is not yet read"
    step = f"make room in {folder}, or set TMPDIR to another folder"
    if room < NO_ROOM:
        return fail("/tmp", what, step)
    if room < LITTLE_ROOM:
        return warn("/tmp", what, step)
    if files.f_files and files.f_favail < FEW_FILES:
        return warn("/tmp", f"{what}, and only {files.f_favail} more files", step)
    return ok("/tmp", what)


def fifos() -> Finding:
    """Makes one in /tmp and sends a byte through it, as every script does."""
    folder = None
    try:
        folder = tempfile.mkdtemp(prefix="punch-doctor-", dir="/tmp")
        path = Path(folder) / "fifo"
        os.mkfifo(path, 0o600)
        # Open for both: nothing here could wait.
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(fd, b"!")
            os.read(fd, 1)
        finally:
            os.close(fd)
    except OSError as error:
        what = f"{folder or '/tmp'} takes no FIFO: {error.strerror or error}"
        return fail("FIFOs", what, "scripts make their FIFOs in /tmp: mount a file system there")
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
    return ok("FIFOs", "one in /tmp was made and carried a byte")


def large_pipes() -> Finding:
    """Whether a pipe grows to what the tools want, and whether splice(2) moves bytes."""
    reader, writer = os.pipe()
    try:
        pipes.grow(writer)
        size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
        spliced = _splices()
    finally:
        os.close(reader)
        os.close(writer)
    what = f"they grow to {size // 1024} KiB; splice {'works' if spliced else 'is refused'}"
    if size < pipes.PIPE_SIZE:
        step = "close programs that hold many pipes, or raise fs.pipe-user-pages-soft (sysctl)"
        return warn("pipes", f"{what}: streams are slower", step)
    if not spliced:
        return warn("pipes", f"{what}: every byte is copied", "allow splice(2) in the sandbox")
    return ok("pipes", what)


def _splices() -> bool:
    reader, writer = os.pipe()
    ours, theirs = socket.socketpair()
    try:
        os.write(writer, b"!")
        return os.splice(reader, ours.fileno(), 1) == 1
    except OSError:
        return False
    finally:
        os.close(reader)
        os.close(writer)
        ours.close()
        theirs.close()


def engine(call: Callable[[], tuple[int, float]] | None = None) -> Finding:
    """The node engine: who listens, and whether it serves a call.

    The call is `pashlib` without a connection, which has nothing to do but to say how it is used
    (exit status 2).

    Args:
        call: makes it; its exit status and seconds.
    """
    name = os.environ.get(engine_client.ENGINE, "")
    if not name:
        return ok("engine", "none is named here: tools run by themselves; handlers start their own")
    step = "start the handler again; until then each tool runs by itself, a third of a second later"
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.settimeout(ENGINE_TIME)
            sock.connect(f"\0{name}")
            peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            uid = struct.unpack("iII", peer)[1]
        except OSError as error:
            what = f"PUNCH_ENGINE names {name}, and there is none: {error.strerror or error}"
            return warn("engine", what, step)
    if uid != os.geteuid():
        what = f"user {uid} listens on {name}, which PUNCH_ENGINE names: its calls are not taken"
        return warn("engine", what, step)
    try:
        status, seconds = (call or _call_the_engine)()
    except (OSError, subprocess.SubprocessError) as error:
        return warn("engine", f"it does not serve a call: {error}", step)
    if status != 2:
        return warn("engine", f"it served a call with status {status}, not 2", step)
    return ok("engine", f"it serves; a call took {seconds * 1000:.0f} ms")


def _call_the_engine() -> tuple[int, float]:
    # A state folder of its own: what a tool leaves there is nobody's failure.
    with tempfile.TemporaryDirectory(prefix="punch-doctor-") as folder:
        package = Path(punchlib.__file__).resolve().parent.parent
        code = (
            f"import sys; sys.path.insert(0, {str(package)!r});"
            "from punchlib.runtime.engine_client import pashlib; sys.exit(pashlib())"
        )
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code],
            env={**os.environ, "PUNCH_STATE_DIR": folder},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ENGINE_TIME,
            check=False,
        )
        return done.returncode, time.monotonic() - started
