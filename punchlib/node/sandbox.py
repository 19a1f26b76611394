"""Runs a command with a /tmp of its own, so that scripts which use the same paths never meet.

    python3 -I -S sandbox.py [--tmp DIR] [--keep PATH]… [--pashlib FILE] [--chdir DIR]
                             [--read-only yes] [--parent PID] -- CMD…

In new mount, process and IPC namespaces (and in a user namespace where we are not root):

- DIR becomes /tmp. Each PATH to keep that lies below the old /tmp stays visible in the new one.
- Shared memory is its own: an empty /dev/shm, no System V objects of others.
- FILE becomes /opt/pashlib, which scripts call by its absolute path; the rest of /opt stays.
- With --read-only, nothing but /tmp and shared memory can be written, as on Lambda.
- When this process ends, for whatever reason, every process that CMD started is dead: they live
  in a process namespace whose init dies with us. When our own parent dies, so do we, also when
  it has died before we could ask for that: then it is no longer PID.
- SIGTERM and SIGINT are passed on as SIGTERM to all of them; SIGKILL ends all of them at once.

- Tools that still run when CMD ends are taken out of PUNCH_STATE_DIR: those that are left there
  were dead before (`state.dismiss`). Nobody else could tell, for we kill them.

Exits with the command's status (128 + N after signal N), or with 125 and one line on stderr when
the machine refuses the namespaces. Little of the standard library, and no site: a script starts
once in this.
"""

# ruff: noqa: PTH100, PTH103, PTH110, PTH112, PTH120, PTH208, PTH211
# (pathlib takes 5 ms to import.)

from __future__ import annotations

import ctypes
import os
import signal
import stat
import sys

# As typing.TYPE_CHECKING, which takes 6 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import NoReturn

REFUSED = 125

NEWNS, NEWIPC, NEWUSER, NEWPID = 0x00020000, 0x08000000, 0x10000000, 0x20000000
NEWNET = 0x40000000
_BIND, _REC, _PRIVATE = 0x1000, 0x4000, 0x40000
_NOSUID, _NODEV, _NOEXEC = 0x2, 0x4, 0x8
_RDONLY, _REMOUNT = 0x1, 0x20
#: Options of a mount that a remount must repeat: whoever is not root must not take them away.
_FLAGS = {
    b"nosuid": _NOSUID,
    b"nodev": _NODEV,
    b"noexec": _NOEXEC,
    b"noatime": 0x400,
    b"nodiratime": 0x800,
    b"relatime": 1 << 21,
}
_SET_PDEATHSIG = 1
_FORWARDED = (signal.SIGTERM, signal.SIGINT)

_libc = ctypes.CDLL(None, use_errno=True)


class View:
    """What a node sees of the machine: one shape for scripts and workers, here and in requests.

    Attributes:
        tmp: folder that becomes /tmp; "" leaves the old one.
        keep: what stays visible although it lies below the old /tmp.
        pashlib: file that becomes /opt/pashlib; "" leaves the machine's.
        chdir: the working folder; "" leaves the caller's.
        read_only: "yes" makes everything but /tmp and shared memory read-only.
    """

    # No dataclass: importing that takes longer than all the rest of this.
    def __init__(
        self,
        *,
        tmp: str = "",
        keep: Iterable[str] = (),
        pashlib: str = "",
        chdir: str = "",
        read_only: str = "",
    ) -> None:
        self.tmp = tmp
        self.keep = tuple(keep)
        self.pashlib = pashlib
        self.chdir = chdir
        self.read_only = read_only

    def with_tmp(self, tmp: str) -> View:
        """The same with another /tmp."""
        return View(**{**vars(self), "tmp": tmp})


def command(cmd: list[str], view: View | None = None) -> list[str]:
    """The argument list with which this process runs `cmd` in a sandbox."""
    out = [sys.executable, "-I", "-S", os.path.abspath(__file__), "--parent", str(os.getpid())]
    for name, value in vars(view or View()).items():
        for text in value if isinstance(value, tuple) else (value,):
            if text:
                out += [f"--{name.replace('_', '-')}", text]
    return [*out, "--", *cmd]


def refusal() -> str | None:
    """Why this machine makes no sandboxes; None when it does."""
    import subprocess

    tried = subprocess.run(command(["true"]), stdin=subprocess.DEVNULL, capture_output=True)
    return None if tried.returncode == 0 else tried.stderr.decode(errors="replace").strip()


def die_with_parent(parent: int | None = None) -> None:
    """This process is killed when the thread that started it ends.

    Args:
        parent: its pid; one that has died before we could ask for its death is no longer ours.
    """
    _libc.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(REFUSED)


class Lifeline:
    """Ties a child to this process across process namespaces, where no getppid tells.

    Made before the fork; the child takes it with `hold`.
    """

    def __init__(self) -> None:
        self._end, self._ours = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def hold(self) -> None:
        """In the child: dies with the parent from now on, and at once where that is dead."""
        os.close(self._ours)
        die_with_parent()
        try:
            os.read(self._end, 1)
        except BlockingIOError:
            os.close(self._end)
            return
        os._exit(REFUSED)


def confine(view: View, body: Callable[[], int], after: Callable[[], None] = lambda: None) -> int:
    """Runs `body` in a sandbox, in a process and session of its own.

    The caller must have no other threads: this forks. It should die with its own parent.

    Args:
        view: what is seen in it.
        body: returns its status.
        after: runs in the sandbox when `body` has ended, before what it left is killed.

    Returns:
        What `body` returned, 128 + N when it died by signal N, or REFUSED.
    """
    try:
        unshare(NEWNS | NEWIPC | NEWPID)
    except OSError as error:
        print(f"sandbox: this machine refuses namespaces: {error.strerror}", file=sys.stderr)
        return REFUSED
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    lifeline = Lifeline()
    # unshare(CLONE_NEWPID) moves the next child, not us.
    init = os.fork()
    if init == 0:
        lifeline.hold()
        _guard(lambda: _init(view, body, after))

    def forward(*_: object) -> None:
        try:
            os.kill(init, signal.SIGTERM)
        except ProcessLookupError:
            return  # the same signal has reached it, and it has ended

    for signum in _FORWARDED:
        signal.signal(signum, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    _, status = os.waitpid(init, 0)
    return _code(status)


def main(argv: list[str]) -> int:
    """The command line above."""
    view, cmd, parent = _parse(argv)
    die_with_parent(parent)
    # Imported here: in the sandbox it may be out of sight.
    sys.path.insert(0, os.path.abspath(f"{__file__}/../../.."))
    from punchlib.runtime import state

    return confine(view, lambda: _exec(cmd), lambda: state.dismiss(state.given()))


def _parse(argv: list[str]) -> tuple[View, list[str], int | None]:
    names = ("tmp", "keep", "pashlib", "chdir", "read_only", "parent")
    given: dict[str, list[str]] = {name: [] for name in names}
    rest = list(argv)
    while rest and rest[0] != "--":
        option = rest.pop(0)
        name = option.removeprefix("--").replace("-", "_")
        if name not in given or not rest:
            sys.exit(f"sandbox: unexpected argument {option!r}")
        given[name].append(rest.pop(0))
    if len(rest) < 2:
        sys.exit("sandbox: no command; it comes after --")
    keep, parent = given.pop("keep"), given.pop("parent")
    view = View(keep=keep, **{name: values[-1] for name, values in given.items() if values})
    return view, rest[1:], int(parent[-1]) if parent else None


def unshare(namespaces: int) -> None:
    """Moves this process into new namespaces, and into a user namespace where it must.

    Raises:
        OSError: the machine refuses.
    """
    uid, gid = os.getuid(), os.getgid()
    try:
        call("unshare", namespaces)
    except PermissionError:
        call("unshare", NEWUSER | namespaces)
        # Our own identity on both sides: files keep their owner.
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def _init(view: View, body: Callable[[], int], after: Callable[[], None]) -> int:
    """Process 1 of the namespace: mounts, starts the body, and reaps."""
    own_mounts()
    opened = [(p, os.open(p, os.O_PATH)) for p in view.keep if p.startswith("/tmp/")]
    if view.pashlib:
        _mount_opt(os.open(view.pashlib, os.O_PATH))
    if view.tmp:
        _bind(view.tmp, "/tmp")
        for path, fd in opened:
            _bind_fd(fd, path)
    if view.read_only:
        _read_only()
    if os.path.isdir("/dev/shm"):
        call("mount", b"tmpfs", b"/dev/shm", b"tmpfs", _NOSUID | _NODEV, b"mode=1777")
    own_proc()
    if view.chdir:
        os.chdir(view.chdir)

    ending = False

    def forward(*_: object) -> None:
        nonlocal ending
        ending = True
        try:
            os.kill(-1, signal.SIGTERM)  # all but process 1 itself
        except ProcessLookupError:
            return  # none is left

    child = os.fork()
    if child == 0:
        _guard(lambda: _first(body))
    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    code = REFUSED
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            return code
        if pid == child:
            code = _code(status)
            # The shell dies of SIGTERM at once; an upload that heard it is still aborting itself.
            # Whoever sent it sends SIGKILL when that takes too long.
            if not ending:
                after()
                return code


def _first(body: Callable[[], int]) -> int:
    os.setsid()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    return body()


def _exec(cmd: list[str]) -> int:
    try:
        os.execvp(cmd[0], cmd)
    except OSError as error:
        # As a shell has it. A folder of PATH that is closed to us is not that command's fault.
        found = (f"{folder}/{cmd[0]}" for folder in os.get_exec_path())
        if isinstance(error, FileNotFoundError) or (
            "/" not in cmd[0] and not any(map(os.path.isfile, found))
        ):
            print(f"sandbox: {cmd[0]} is not there", file=sys.stderr)
            return 127
        print(f"sandbox: {cmd[0]}: {error.strerror}", file=sys.stderr)
        return 126


def _mount_opt(pashlib: int) -> None:
    target = "/opt/pashlib"
    if not os.path.exists(target):
        if not os.path.isdir("/opt"):
            raise OSError(0, "there is no /opt to put pashlib into; make that folder", "/opt")
        names = [f"/opt/{name}" for name in os.listdir("/opt")]
        there = [(name, os.open(name, os.O_PATH | os.O_NOFOLLOW)) for name in names]
        call("mount", b"tmpfs", b"/opt", b"tmpfs", _NOSUID | _NODEV, b"mode=755,size=1m")
        for name, fd in there:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                os.symlink(os.readlink("", dir_fd=fd), name)
            else:
                _bind_fd(fd, name)
    _bind_fd(pashlib, target)


def own_mounts() -> None:
    """What this mount namespace mounts from now on, nobody else sees."""
    call("mount", b"none", b"/", None, _REC | _PRIVATE, None)


def own_proc() -> None:
    """Shows this process namespace in /proc.

    Where /proc is masked (a container) that is not allowed; /proc/self is right all the same.
    """
    _libc.mount(b"proc", b"/proc", b"proc", _NOSUID | _NODEV | _NOEXEC, None)


def _read_only() -> None:
    """Makes every mount but /tmp read-only; devices and FIFOs can be written to all the same."""
    with open("/proc/self/mountinfo", "rb") as file:
        mounts = [line.split(b" ") for line in file]
    for fields in mounts:
        flags = _BIND | _REMOUNT | _RDONLY
        for option in fields[5].split(b","):
            flags |= _FLAGS.get(option, 0)
        # The kernel writes a space in a path as \040, and so on.
        path = fields[4].decode("unicode-escape").encode("latin-1")
        if path != b"/tmp":
            # One that is hidden below another, or that we may not change, stays.
            _libc.mount(None, path, None, flags, None)


def _bind_fd(fd: int, target: str) -> None:
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _bind(f"/proc/self/fd/{fd}", target)
    os.close(fd)


def _bind(source: str, target: str) -> None:
    call("mount", os.fsencode(source), os.fsencode(target), None, _BIND | _REC, None)


def call(name: str, *args: int | bytes | None) -> None:
    """Calls a function of the C library; -1 becomes an OSError."""
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
