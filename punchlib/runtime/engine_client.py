"""The client of the node engine: what `/opt/pashlib` and `aws/*.py` run.

Importing boto3, asyncio and ssl takes 300 ms, a script starts such tools several times, and a
machine runs many scripts. So one engine (`punchlib.runtime.engine`) has imported everything and
forks for each call. This client hands over its arguments, environment, folder, standard streams
and the files that the arguments name, waits, and exits with the tool's code. Without an engine
the same `main` runs here.

Only built-in modules are imported: the client must be up in the time that Python itself takes.
Handed over is, on an abstract Unix stream socket:

    4 bytes  length of the text, native order
    4 bytes  number of descriptors
    text     tool NUL argc NUL arguments… NUL names=values… joined by NUL
    1 byte for every batch of at most `BATCH` descriptors (SCM_RIGHTS), in this order:
             0, 1, 2, the folder, the state folder (by hand the one that holds them all), /proc,
             then one for each path among the arguments (`catalogue.paths`)

and two bytes come back: 0 when the engine has taken the call on, and in the end the exit code.
When the client shuts its side down, or is gone, the tool gets SIGTERM.

Arguments and environment hold secrets, and anybody may bind a name that is free. So before the
first byte the kernel is asked who listens there: our own user, or it is no engine of ours (it would
not serve us either). Whatever is wrong with the engine, as long as it has not taken the call on the
tool runs here.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed leaves it out
import _socket
import posix
import sys

from punchlib.runtime import catalogue, state

#: The environment variable that names the engine's socket.
ENGINE = "PUNCH_ENGINE"
#: The variable that tells the engine whose stage its caller is (`state.Scope`).
SCOPE = "PUNCH_SCOPE"
#: Descriptors in one message; the kernel takes 253.
BATCH = 200


def run(tool: str) -> int:
    """Runs a tool by the engine, or here when there is none; the exit code."""
    argv = sys.argv[1:]
    state.fill_descriptors()
    name = posix.environ.get(ENGINE.encode(), b"")
    if name:
        code = _by_engine(name, tool, argv)
        if code is not None:
            return code
    return catalogue.load(tool)(argv)


def pashlib() -> int:
    """The console script of a virtual environment: `/opt/pashlib` by another name."""
    return run("pashlib")


def _by_engine(name: bytes, tool: str, argv: list[str]) -> int | None:
    """The exit code, or None when the engine is not there or a path cannot be opened.

    In the latter case the tool runs here, and says what is wrong with the path.
    """
    opened: list[int] = []
    told: list[int] = []
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        paths = catalogue.paths(tool, argv)
        opened.append(posix.open(".", _O_PATH))
        state.begin(tool)
        scope = state.scope()
        opened.append(posix.open(scope.place, _O_PATH))
        opened.append(posix.open(scope.proc, _O_PATH))
        for _, path, _ in paths:  # here, in our /tmp
            opened.append(posix.open(path, _O_PATH))
        sock.connect(b"\0" + name)
        if _uid_of(sock) != posix.geteuid():
            return None
        _hand_over(sock, tool, argv, scope, [0, 1, 2, *opened])
        _pass_on_sigterm(sock, told)
        taken = sock.recv(1)
        answer = sock.recv(1) if taken else None
    except OSError:
        answer = None
    finally:
        for fd in opened:
            posix.close(fd)
    if not answer and told:  # before the tool could say it itself
        posix.write(2, f"{tool}: stopped by SIGTERM\n".encode())
        return 143
    if answer is None:
        if _signal.getsignal(_signal.SIGTERM) is not _signal.SIG_IGN:
            _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
        return None
    if not answer:
        posix.write(2, f"{tool}: killed in the engine (out of memory?)\n".encode())
        return 137
    state.end(tool, 0)  # how the tool has ended, it has said itself
    return answer[0]


def _pass_on_sigterm(sock: _socket.socket, told: list[int]) -> None:
    """SIGTERM is for the tool, and we wait for how it ends: it has a marker to leave.

    Args:
        sock: to the engine.
        told: gets the signal's number when it comes.
    """

    def pass_on(number: int, _frame: object) -> None:
        told.append(number)
        try:
            sock.shutdown(_socket.SHUT_WR)
        except OSError:
            return  # it has just ended

    if _signal.getsignal(_signal.SIGTERM) is _signal.SIG_DFL:
        _signal.signal(_signal.SIGTERM, pass_on)


def _uid_of(sock: _socket.socket) -> int:
    """The user who listens at the other end: struct ucred is pid, uid, gid."""
    credentials = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder)


_O_PATH = 0o10000000 | 0o2000000  # O_PATH | O_CLOEXEC; the os module is not imported


def _hand_over(
    sock: _socket.socket,
    tool: str,
    argv: list[str],
    scope: state.Scope,
    fds: list[int],
) -> None:
    environment = [k + b"=" + v for k, v in posix.environ.items()]
    environment.append(f"{SCOPE}={scope.encode()}".encode())
    arguments = [a.encode("utf-8", "surrogateescape") for a in argv]
    text = b"\0".join([tool.encode(), str(len(argv)).encode(), *arguments, *environment])
    sock.sendall(_int(len(text)) + _int(len(fds)) + text)
    for start in range(0, len(fds), BATCH):
        rights = b"".join(_int(fd) for fd in fds[start : start + BATCH])
        sock.sendmsg([b"\0"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])


def _int(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)
