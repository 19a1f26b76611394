"""Runs a command with a /tmp of its own, so that scripts which use the same paths never meet.

    python3 -I -S sandbox.py [--tmp DIR] [--keep PATH]… [--pashlib FILE] [--chdir DIR] -- CMD…

In new mount and process namespaces (and in a user namespace where we are not root):

- DIR becomes /tmp. Each PATH to keep that lies below the old /tmp stays visible in the new one.
- FILE becomes /opt/pashlib, which scripts call by its absolute path; the rest of /opt stays.
- When this process ends, for whatever reason, every process that CMD started is dead: they live
  in a process namespace whose init dies with us. When our own parent dies, so do we.
- SIGTERM and SIGINT are passed on as SIGTERM to all of them; SIGKILL ends all of them at once.

Exits with the command's status (128 + N after signal N), or with 125 and one line on stderr when
the machine refuses the namespaces. Only the standard library, and no site: it starts in 25 ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

REFUSED = 125

_NEWNS, _NEWUSER, _NEWPID = 0x00020000, 0x10000000, 0x20000000
_BIND, _REC, _PRIVATE = 0x1000, 0x4000, 0x40000
_NOSUID, _NODEV, _NOEXEC = 0x2, 0x4, 0x8
_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def command(
    cmd: list[str],
    *,
    tmp: Path | None = None,
    keep: tuple[Path, ...] = (),
    pashlib: Path | None = None,
    chdir: Path | None = None,
) -> list[str]:
    """The argument list that runs `cmd` in a sandbox."""
    out = [sys.executable, "-I", "-S", os.path.abspath(__file__)]  # noqa: PTH100
    if tmp:
        out += ["--tmp", str(tmp)]
    for path in keep:
        out += ["--keep", str(path)]
    if pashlib:
        out += ["--pashlib", str(pashlib)]
    if chdir:
        out += ["--chdir", str(chdir)]
    return [*out, "--", *cmd]


def refusal() -> str | None:
    """Why this machine makes no sandboxes; None when it does."""
    import subprocess

    tried = subprocess.run(command(["true"]), stdin=subprocess.DEVNULL, capture_output=True)
    return None if tried.returncode == 0 else tried.stderr.decode(errors="replace").strip()


def die_with_parent(parent: int | None = None) -> None:
    """Asks the kernel to kill this process when the thread that started it ends."""
    _libc.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(1)  # it died before we could ask


def main(argv: list[str]) -> int:
    options, cmd = _parse(argv)
    die_with_parent()
    try:
        _unshare()
    except OSError as error:
        print(f"sandbox: this machine refuses namespaces: {error.strerror}", file=sys.stderr)
        return REFUSED
    # unshare(CLONE_NEWPID) moves the next child, not us.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    init = os.fork()
    if init == 0:
        _guard(lambda: _init(options, cmd))

    def forward(*_: object) -> None:
        os.kill(init, signal.SIGTERM)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    _, status = os.waitpid(init, 0)
    return _code(status)


def _parse(argv: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    options: dict[str, list[str]] = {}
    rest = list(argv)
    while rest and rest[0] != "--":
        name = rest.pop(0)
        if name not in ("--tmp", "--keep", "--pashlib", "--chdir") or not rest:
            sys.exit(f"sandbox: unexpected argument {name!r}")
        options.setdefault(name, []).append(rest.pop(0))
    if len(rest) < 2:
        sys.exit("sandbox: no command; it comes after --")
    return options, rest[1:]


def _unshare() -> None:
    uid, gid = os.getuid(), os.getgid()
    try:
        _call("unshare", _NEWNS | _NEWPID)
    except PermissionError:
        _call("unshare", _NEWUSER | _NEWNS | _NEWPID)
        # Our own identity on both sides: files keep their owner.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _init(options: dict[str, list[str]], cmd: list[str]) -> int:
    """Process 1 of the namespace: mounts, starts the command, and reaps."""
    die_with_parent()
    _call("mount", b"none", b"/", None, _REC | _PRIVATE, None)
    keep = [Path(p) for p in options.get("--keep", [])]
    opened = [(p, os.open(p, os.O_PATH)) for p in keep if p.is_relative_to("/tmp")]
    for pashlib in options.get("--pashlib", []):
        _mount_opt(os.open(pashlib, os.O_PATH))
    for tmp in options.get("--tmp", []):
        _bind(tmp, Path("/tmp"))
        for path, fd in opened:
            _bind_fd(fd, path)
    # /proc/self is right without it; where /proc is masked (a container) it cannot be mounted.
    _libc.mount(b"proc", b"/proc", b"proc", _NOSUID | _NODEV | _NOEXEC, None)
    for folder in options.get("--chdir", []):
        os.chdir(folder)

    def forward(*_: object) -> None:
        os.kill(-1, signal.SIGTERM)  # all but process 1 itself

    child = os.fork()
    if child == 0:
        _guard(lambda: _exec(cmd))
    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    while True:
        pid, status = os.wait()
        if pid == child:
            return _code(status)


def _exec(cmd: list[str]) -> int:
    os.setsid()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    try:
        os.execvp(cmd[0], cmd)
    except FileNotFoundError:
        print(f"sandbox: {cmd[0]} is not there", file=sys.stderr)
        return 127


def _mount_opt(pashlib: int) -> None:
    target = Path("/opt/pashlib")
    if not target.exists():
        if not target.parent.is_dir():
            raise OSError(0, "there is no /opt to put pashlib into; make that folder", "/opt")
        there = [(p, os.open(p, os.O_PATH | os.O_NOFOLLOW)) for p in target.parent.iterdir()]
        _call("mount", b"tmpfs", b"/opt", b"tmpfs", _NOSUID | _NODEV, b"mode=755,size=1m")
        for path, fd in there:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                path.symlink_to(os.readlink("", dir_fd=fd))
            else:
                _bind_fd(fd, path)
    _bind_fd(pashlib, target)


def _bind_fd(fd: int, target: Path) -> None:
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _bind(f"/proc/self/fd/{fd}", target)
    os.close(fd)


def _bind(source: str, target: Path) -> None:
    _call("mount", os.fsencode(source), os.fsencode(target), None, _BIND | _REC, None)


def _call(name: str, *args: int | bytes | None) -> None:
    if getattr(_libc, name)(*args) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _guard(body: Callable[[], int]) -> NoReturn:
    """A forked child never returns into its parent's code."""
    code = REFUSED
    try:
        code = body()
    except OSError as error:
        print(f"sandbox: {error.strerror}: {error.filename or ''}".rstrip(": "), file=sys.stderr)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else REFUSED
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
