"""Ctrl-C and SIGTERM end a command once, in order, with the exit status of a shell."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


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
    """
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop(signum: int, _: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(signum)

    before = {s: signal.signal(s, stop) for s in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
