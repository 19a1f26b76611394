"""Ctrl-C and SIGTERM end a command once, in order, with the exit status of a shell."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

#: Seconds until an interruption that Python could not raise is raised again.
AGAIN = 0.01


class Interrupted(BaseException):
    """The user, or the system, asked us to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.name = signal.Signals(signum).name
        self.exit_code = 128 + signum


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """The first SIGINT or SIGTERM raises `Interrupted` in the main thread; later ones wait.

    What follows is the orderly end, which must not be torn by an impatient second Ctrl-C: it is
    bounded in time by itself.

    Where Python cannot raise, in a finalizer or in the import system's callbacks, it prints an
    exception and goes on. Then `Interrupted` is raised again, a moment later.
    """
    signals = (signal.SIGINT, signal.SIGTERM)
    heard: list[int] = []

    def stop(signum: int, _: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        heard.append(signum)
        raise Interrupted(signum)

    def again(_: int, frame: FrameType | None) -> None:
        stop(heard[0], frame)

    def not_raised(lost: sys.UnraisableHookArgs) -> None:
        if isinstance(lost.exc_value, Interrupted):
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
        else:
            usual(lost)

    usual, sys.unraisablehook = sys.unraisablehook, not_raised
    before = {s: signal.signal(s, stop) for s in signals}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, again)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = usual
        for signum, handler in before.items():
            signal.signal(signum, handler)
