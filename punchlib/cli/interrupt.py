"""Ctrl-C and SIGTERM end a command once, in order, with the exit status of a shell."""

from __future__ import annotations

import signal

from punchlib.signals import Raising


class Interrupted(BaseException):
    """The user, or the system, asked us to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.name = signal.Signals(signum).name
        self.exit_code = 128 + signum


def interruptible() -> Raising:
    """A context in which the first SIGINT or SIGTERM raises `Interrupted` in the main thread."""
    return Raising((signal.SIGINT, signal.SIGTERM), Interrupted)
