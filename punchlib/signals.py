"""Signals that raise an exception in the main thread: once, and for certain.

Python raises what a signal handler raises wherever the main thread happens to be. In a finalizer or
in a callback of the import system it cannot: it prints the exception there and goes on. Code in C
may clear it, a callback of an event loop may log it. Then the signal would be lost, for those after
it are ignored. So the exception is raised again until somebody handles it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # its enums are half of what `signal` costs
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Tools of a few milliseconds go through here.
    from collections.abc import Callable, Sequence

#: Seconds until an exception that nobody handles is raised again.
AGAIN = 0.1


class Raising:
    """A context in which the first of some signals raises; those after it are ignored.

    What follows the exception is the orderly end, which must not be torn by an impatient second
    signal: it is bounded in time by itself.

    Args:
        numbers: the signals.
        error: makes the exception, from the signal's number.
    """

    def __init__(self, numbers: Sequence[int], error: Callable[[int], BaseException]) -> None:
        self._numbers = numbers
        self._error = error
        self._raised: BaseException | None = None

    def __enter__(self) -> Raising:
        self._usual_hook, sys.unraisablehook = sys.unraisablehook, self._not_raised
        self._before = {n: _signal.signal(n, self._stop) for n in self._numbers}
        self._before[_signal.SIGALRM] = _signal.signal(_signal.SIGALRM, self._again)
        return self

    def __exit__(self, _kind: object, error: object, _traceback: object) -> None:
        self.settle()
        sys.unraisablehook = self._usual_hook
        for number, handler in self._before.items():
            _signal.signal(number, handler)
        # What is written in C may turn an exception that it does not expect into one of its own.
        # (Seen: a TypeError out of an import.) And what fails after a signal does so because of it.
        if self._raised is not None and isinstance(error, Exception):
            raise self._raised

    def settle(self) -> None:
        """Says, while the exception is handled or after that, that it is not to be raised again."""
        _signal.setitimer(_signal.ITIMER_REAL, 0)

    def _stop(self, number: int, _: object) -> None:
        for each in self._numbers:
            _signal.signal(each, _signal.SIG_IGN)
        self._raised = self._error(number)
        _signal.setitimer(_signal.ITIMER_REAL, AGAIN, AGAIN)
        raise self._raised

    def _not_raised(self, lost: sys.UnraisableHookArgs) -> None:
        if self._raised is None or lost.exc_value is not self._raised:
            self._usual_hook(lost)

    def _again(self, _number: int, _frame: object) -> None:
        if self._raised is not None and not self._is_handled():
            raise self._raised

    def _is_handled(self) -> bool:
        """Is the main thread in a handler or a clean-up that the exception has led to?"""
        seen: set[int] = set()
        pending = [sys.exc_info()[1]]
        while pending:
            error = pending.pop()
            if error is self._raised:
                return True
            if error is not None and id(error) not in seen:  # one may be its own cause
                seen.add(id(error))
                pending += [error.__cause__, error.__context__]
        return False
