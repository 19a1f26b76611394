"""Which shell runs the script that we are a stage of. Built-in modules only: `thin` comes here."""

from __future__ import annotations

import posix

_SHELLS = (b"bash", b"sh", b"dash", b"ash", b"ksh", b"zsh", b"busybox")


def script_id() -> int:
    """The pid that all stages of our script have in common.

    That is the shell that started us. Without a script, that is from a terminal or from another
    program, stages have nothing in common that would not also tie them to earlier calls: then it
    is our own pid.
    """
    given = posix.environ.get(b"PUNCH_SHELL")  # under the engine our client knows it
    if given:
        return int(given)
    parent = posix.getppid()
    try:
        if _read(f"/proc/{parent}/comm").strip() not in _SHELLS:
            return posix.getpid()
        words = _read(f"/proc/{parent}/cmdline").rstrip(b"\0").split(b"\0")
        terminal = posix.readlink(f"/proc/{parent}/fd/0").startswith(("/dev/pts/", "/dev/tty"))
    except OSError:
        return posix.getpid()
    return posix.getpid() if terminal and len(words) == 1 else parent


def state_name(pid: int) -> str:
    """`PID-STARTTIME`, since pids come again; the wait script makes the same name."""
    # The second field, a name in brackets, may hold anything; the start time is the 22nd.
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return f"{pid}-{fields[19].decode()}"


def _read(path: str) -> bytes:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, 65536)
    finally:
        posix.close(fd)
