"""A world of its own for a whole `punch run --local`: nobody gets in, and nothing stays.

    punch ── janitor ── the run: process 1 of new process, mount and network namespaces
                        └─ the services, the nodes

- Its network is a loopback that no other user, and no browser of this user, can reach.
- Whatever ends the run, the kernel ends every process of it; the janitor then removes its folder.
- Who kills `punch` kills what the user sees. The janitor, in a session of its own, notices and
  ends the run; were the janitor killed, the run dies with it, and `punch` removes the folder.
  Were both killed, the next run does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
from pathlib import Path
from typing import NoReturn

from punchlib.errors import UsageError
from punchlib.node import sandbox, scratch

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x41

#: This process is one of a run's: when it ends, nothing is left to be tidied up by it.
entered = False


def enter() -> Path:
    """Goes on in the new world; this process only waits, and exits as the run does.

    The caller must have no other threads: this forks.

    Returns:
        In the new world: an empty folder, for the user alone, that goes when the run has ended.

    Raises:
        UsageError: this machine refuses namespaces, or the folder.
    """
    global entered
    entered = True
    folder = scratch.name("punch-local")
    us = os.pidfd_open(os.getpid())
    refusal, refuse = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    janitor = os.fork()
    if janitor == 0:
        os.close(refusal)
        _keep(us, folder, refuse)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return folder
    os.close(refuse)
    _pass_on_signals(janitor)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with open(refusal, "rb") as pipe:
        why = pipe.read().decode(errors="replace")
    _, status = os.waitpid(janitor, 0)
    if os.WIFSIGNALED(status):
        scratch.remove(folder)
    if why:
        raise UsageError(
            f"{why}: without namespaces the nodes cannot have a network and a /tmp of their own",
            next_step="allow user namespaces (sysctl kernel.unprivileged_userns_clone=1,"
            " kernel.apparmor_restrict_unprivileged_userns=0), run as root, or use"
            " `make local-e2e`",
        )
    raise SystemExit(_code(status))


def _keep(punch: int, folder: Path, refuse: int) -> None:
    """The janitor. Returns in the new world only."""
    os.setsid()  # what is sent to the terminal's processes, `punch` passes on
    try:
        scratch.make(folder)  # held until the janitor and the run have ended
        sandbox.unshare(
            sandbox.NEWNS | sandbox.NEWIPC | sandbox.NEWPID | sandbox.NEWNET,
        )
    except OSError as error:
        _give_up(refuse, f"this machine refuses: {error.strerror or error}", folder)
    lifeline = sandbox.Lifeline()
    run = os.fork()
    if run == 0:
        lifeline.hold()
        try:
            sandbox.own_mounts()
            sandbox.own_proc()
            _loopback_up()
        except OSError as error:
            _give_up(refuse, f"this machine refuses: {error.strerror or error}", folder)
        os.close(refuse)
        return
    os.close(refuse)
    _pass_on_signals(run)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    poll = select.poll()
    ended = os.pidfd_open(run)
    for fd in (punch, ended):
        poll.register(fd, select.POLLIN)
    if ended not in dict(poll.poll()):
        os.kill(run, signal.SIGKILL)  # `punch` was killed
    _, status = os.waitpid(run, 0)  # it has ended when all of its processes have
    scratch.remove(folder)
    os._exit(_code(status))


def _give_up(refuse: int, why: str, folder: Path) -> NoReturn:
    os.write(refuse, why.encode())
    with contextlib.suppress(OSError):
        folder.rmdir()
    os._exit(UsageError.exit_code)


def _pass_on_signals(pid: int) -> None:
    def pass_on(signum: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)

    for signum in _PASSED_ON:
        signal.signal(signum, pass_on)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP_RUNNING))


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
