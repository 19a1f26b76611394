"""The node engine: one resident process that has imported everything, and forks for each call.

It is single-threaded and opens no connection, so a fork is clean. Each child is a process of its
own: it can be killed, run out of memory and use a core without touching its siblings.

A cold node wants its first stream at once, and boto3 takes longer than all the rest. So the engine
begins with what streams need; in its first quiet moment an heir of it, a fork, imports boto3 too,
and serves from then on. The engine waits, and serves again when its heir has died.

The caller (`punchlib.runtime.engine_client`) may live in another mount namespace with another /tmp;
what it hands over are open descriptors.

A child whose caller dies gets SIGTERM, as the tool itself would have.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from punchlib.runtime import catalogue, engine_client, state

#: A request is arguments and environment: the kernel's own limit for both is about 2 MiB.
MAX_REQUEST = 8 << 20
#: Seconds for a caller to hand over its request. It holds up nobody but its own fork, and one that
#: takes longer runs its tool by itself.
REQUEST_TIME = 30.0
#: What a caller reads when its call has been taken on.
TAKEN = b"\0"
#: Seconds without a caller after which there is time to import boto3.
QUIET = 0.5
#: Seconds before the next try when the machine is full.
FULL_PAUSE = 0.1
_SET_PDEATHSIG = 1
_INT = struct.Struct("=I")


class CallerLeftError(Exception):
    """The caller is gone: there is nobody to tell."""


@dataclass
class Request:
    """What a caller hands over.

    Attributes:
        tool: a name of `catalogue.TOOLS`.
        argv: its arguments; the paths among them name our descriptors (`catalogue.display_name`).
        environment: the caller's.
        fds: 0, 1, 2, the folder, the state folder, /proc, the paths.
    """

    tool: str
    argv: list[str]
    environment: dict[str, str]
    fds: list[int]


@contextlib.contextmanager
def spawn(environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Runs an engine while the context lasts; yields the value for PUNCH_ENGINE.

    The socket listens before the engine has imported anything: early callers wait in its queue.

    Args:
        environment: the engine's; its AWS clients serve callers with the same AWS_ variables.
    """
    name = f"punch-{os.getpid()}-{os.urandom(6).hex()}"
    with _listen(name) as listener:
        command = [sys.executable, "-P", "-m", "punchlib.runtime.engine"]
        process = subprocess.Popen(
            [*command, str(listener.fileno()), str(os.getpid())],
            env=None if environment is None else dict(environment),
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for its owner, who ends it
        )
    try:
        yield name
    finally:
        process.terminate()
        process.wait()


def serve(listener: socket.socket) -> None:
    """Serves callers of our own user until SIGTERM."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a fork takes all that it is handed
    renew = _import_for_streams()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
    if "boto3" in sys.modules:
        _import_the_rest()
    else:
        _serve(listener, renew, patience=QUIET)
        _leave_to_an_heir(listener, renew)
    _serve(listener, renew)


def _serve(
    listener: socket.socket,
    renew: Callable[[], None],
    *,
    patience: float | None = None,
    until: socket.socket | None = None,
) -> None:
    """Takes callers on.

    Args:
        listener: where they come.
        renew: what is to be done between two forks.
        patience: return when nobody has come for so many seconds.
        until: return when there is something to read here.
    """
    poll = select.poll()
    for each in (listener, until):
        if each is not None:
            poll.register(each, select.POLLIN)
    while True:
        ready = dict(poll.poll(None if patience is None else patience * 1000))
        if listener.fileno() not in ready:
            return
        try:
            connection, _ = listener.accept()
            with connection:
                if _uid_of(connection) != os.geteuid():
                    continue
                if os.fork() == 0:
                    listener.close()
                    _child(connection)
        except OSError:
            # No descriptor, no process or no memory is to be had. Who was not taken on runs its
            # tool by itself; who waits in the queue is served when there is room again.
            time.sleep(FULL_PAUSE)
            continue
        renew()


def _leave_to_an_heir(listener: socket.socket, renew: Callable[[], None]) -> None:
    """Serves until an heir can, and returns when that has ended."""
    ours, theirs = socket.socketpair()
    us = os.getpid()
    try:
        heir = os.fork()
    except OSError:
        return  # no room for one: so be it
    if heir == 0:
        _die_with_parent(us)
        ours.close()
        _import_the_rest()
        renew()  # what lies ready for the next fork is its own
        theirs.send(b"!")
        theirs.close()
        _serve(listener, renew)
    theirs.close()
    with ours:
        try:
            # What it forks may outlive it, and has all its sockets: only the kernel can tell.
            alive = os.pidfd_open(heir)
        except OSError:
            return  # it is dead, or has nobody to tell that it is ready and ends: we go on
        _serve(listener, renew, until=ours)
    select.select([alive], [], [])
    os.close(alive)


def _import_the_rest() -> None:
    from punchlib import wiring

    wiring.warm_up_boto3()
    _share()


def _share() -> None:
    gc.collect()
    # What is shared with the children stays shared: the collector would touch every page.
    gc.freeze()


def _import_for_streams() -> Callable[[], None]:
    """Returns what is to be done between two forks."""
    from punchlib import wiring
    from punchlib.aws import clients

    for name, tool in catalogue.TOOLS.items():
        if tool.served:
            catalogue.load(name)
    clients.keep()
    wiring.warm_up()
    _share()

    def renew() -> None:
        wiring.renew()
        if wiring.control is None or _hung_up(wiring.control):
            wiring.control = None
            with contextlib.suppress(OSError):  # no room for it: each does without
                wiring.control = _start_store(wiring.serve_machine)

    renew()
    return renew


def _start_store(serve: Callable[[socket.socket], None]) -> socket.socket:
    """Forks the process that talks to the rendezvous for all others; the way to it."""
    from punchlib.rendezvous.machine_service import in_a_fork

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        if os.fork() == 0:
            in_a_fork(theirs, serve)
    return ours


def _hung_up(connection: socket.socket) -> bool:
    """Nothing is ever sent this way: it either is silent or has ended."""
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a reset: it has died with something unread


def _child(connection: socket.socket) -> None:
    """Runs one tool and exits; never returns."""
    code, tool = 1, ""
    try:
        os.setsid()  # Linux gives each session its share: ours is not the engine's
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        request = receive(connection)
        enter(request)  # what fails before this byte, the caller does by itself
        _take_on(connection)
        tool = request.tool
        _die_with(connection)
        code = catalogue.load(request.tool)(request.argv)
    except CallerLeftError:
        pass
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        if tool:
            state.end(tool, code)  # its caller takes the code for all that there is to say
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        with contextlib.suppress(OSError):
            if tool:
                connection.send(bytes([code & 0xFF]))
        os._exit(code & 0xFF)


def _take_on(connection: socket.socket) -> None:
    try:
        connection.send(TAKEN)
    except OSError:
        raise CallerLeftError from None


def receive(connection: socket.socket) -> Request:
    """Reads one request (the form is in `punchlib.runtime.engine_client`).

    Raises:
        CallerLeftError: it was killed in the middle, or says nothing.
        ValueError: the request has another form.
    """
    deadline = time.monotonic() + REQUEST_TIME
    length, count = struct.unpack("=II", _exactly(connection, 8, deadline))
    if length > MAX_REQUEST or not 6 <= count < 100_000:
        raise ValueError(f"a request of {length} bytes with {count} descriptors")
    text = _exactly(connection, length, deadline)
    fds: list[int] = []
    while len(fds) < count:
        size = socket.CMSG_SPACE(engine_client.BATCH * _INT.size)
        _wait_for(connection, deadline)
        data, ancillary, _, _ = connection.recvmsg(1, size)
        if not data:
            raise CallerLeftError
        for level, kind, rights in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds += array.array("i", rights[: len(rights) - len(rights) % _INT.size])
    tool, argc, *rest = text.split(b"\0")
    argv = [os.fsdecode(a) for a in rest[: int(argc)]]
    variables = (os.fsdecode(v).partition("=") for v in rest[int(argc) :])
    environment = {name: value for name, _, value in variables}
    for (index, path, _), fd in zip(catalogue.paths(tool.decode(), argv), fds[6:], strict=True):
        argv[index] = _with_path(argv[index], path, fd)
    return Request(tool.decode(), argv, environment, fds)


def _with_path(argument: str, path: str, fd: int) -> str:
    """The argument with its path replaced by our descriptor of it."""
    ours = f"/proc/self/fd/{fd}"
    catalogue.NAMES[ours] = path
    return argument.removesuffix(path) + ours


def enter(request: Request) -> None:
    """Takes on the caller's streams, folder and environment."""
    os.fchdir(request.fds[3])
    os.environ.clear()
    os.environ.update(request.environment)
    place, proc = (f"/proc/self/fd/{fd}" for fd in request.fds[4:6])
    state.adopt(state.Scope.decode(os.environ.pop(engine_client.SCOPE), place, proc))
    # Last: what goes wrong before is for our own log, for the caller does without us.
    for target, fd in enumerate(request.fds[:3]):
        os.dup2(fd, target)
        os.close(fd)


def _die_with(connection: socket.socket) -> None:
    """SIGTERM for this process as soon as the caller's end is shut down or closed.

    By a thread: O_ASYNC also signals bytes that had been read when it was asked for.
    """
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    us = threading.get_ident()

    def watch() -> None:
        poll.poll()
        signal.pthread_kill(us, signal.SIGTERM)  # us: it is our system call that has to end

    threading.Thread(target=watch, name="caller", daemon=True).start()


def _exactly(connection: socket.socket, size: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < size:
        _wait_for(connection, deadline)
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise CallerLeftError
        data += chunk
    return bytes(data)


def _wait_for(connection: socket.socket, deadline: float) -> None:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise CallerLeftError


def _uid_of(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("iII", credentials)[1])


def _listen(name: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(f"\0{name}")
    listener.listen(128)
    return listener


def _die_with_parent(parent: int) -> None:
    """Who started us may be killed before it can end us."""
    ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


def main() -> int:
    """`python -m punchlib.runtime.engine NAME|FD [PARENT]`: serves until SIGTERM."""
    where = sys.argv[1]
    if sys.argv[2:]:
        _die_with_parent(int(sys.argv[2]))
    listener = socket.socket(fileno=int(where)) if where.isdigit() else _listen(where)
    # Not by an exception, which would be lost where Python cannot raise it.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with contextlib.suppress(KeyboardInterrupt):
        serve(listener)
    return 0


if __name__ == "__main__":
    sys.exit(main())
