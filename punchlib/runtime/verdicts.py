"""What the wait script thinks of the stages of our script, and waiting until it has said so.

A FIFO's end is the end of whoever wrote it, and only the shell that started a stage learns how it
ended. So before a sender says END it asks: which stages are dead *now*, and not yet judged?
For those it waits. It never waits for a stage that runs: that one may need our END, by way of
another machine (a splitter and a merger in one script).

The wait script speaks by the names of empty files in `verdicts/`; SHELL and STAGE are
`PID-STARTTIME`:

    SHELL.stage.STAGE   a stage that it will judge
    SHELL.begun         it has named them all
    SHELL.good.STAGE    it ended well; one that ended badly has a marker in `failures/`
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Iterable, Sequence
from types import TracebackType

from punchlib.runtime import markers, script_shell, state

#: Seconds between two looks whether the shell that is to judge still lives; and between two looks
#: at everything where the kernel has no more inotify instances for us.
SHELL_LOOK, BLIND_LOOK = 1.0, 0.05

_libc = ctypes.CDLL(None, use_errno=True)
_IN_ATTRIB, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE_SELF = 0x4, 0x80, 0x100, 0x400
_IN_NEWS = _IN_ATTRIB | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE_SELF


async def upstream_failure() -> str | None:
    """Why what came out of a FIFO of our script is not whole; None when all is well.

    Waits for the verdicts on stages that have ended, and for nothing else.
    """
    try:
        scope = state.scope()
    except OSError as error:
        return f"its script cannot be found: {error}"
    if settled(scope):
        return _first_cause()
    with _News(scope.folders) as news:
        # What changed before the watch began is seen by the next look.
        while not settled(scope):
            await news.wait()
    return _first_cause()


def settled(scope: state.Scope) -> bool:
    """Is there nothing to wait for: has every stage that is dead been judged, or one badly?"""
    if markers.failures(scope.folders):
        return True
    shell = judge(scope, scope.awaited)
    if shell is None or _unjudged(scope, shell) == []:
        return True
    if script_shell.find(shell, scope.proc):
        return False
    # Its last words came before its end.
    if _unjudged(scope, shell) != []:
        state.mark_failed("wait", "the shell of the script ended before it had judged all stages")
    return True


def judge(scope: state.Scope, candidates: Sequence[str]) -> str | None:
    """The shell that judges our script's stages: whose wait script has begun, or will.

    Args:
        scope: ours.
        candidates: those that will: `scope.awaited`, or all of `scope.sourcing` for somebody who
            will not wait for them.
    """
    for shell in scope.shells:
        if os.path.exists(f"{_verdicts(scope, shell)}/{shell}.begun"):  # noqa: PTH110
            return shell
    living = [s for s in candidates if script_shell.find(s, scope.proc)]
    last = living or candidates
    return last[-1] if last else None


def _unjudged(scope: state.Scope, shell: str) -> list[str] | None:
    """The stages that are dead and not judged; None before the wait script has begun."""
    try:
        names = set(os.listdir(_verdicts(scope, shell)))  # noqa: PTH208
    except OSError:
        return None  # the folder is gone: `failures` says so
    if f"{shell}.begun" not in names:
        return None
    prefix = f"{shell}.stage."
    stages = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    open_ = [stage for stage in stages if f"{shell}.good.{stage}" not in names]
    return [stage for stage in open_ if script_shell.find(stage, scope.proc) is None]


def _verdicts(scope: state.Scope, shell: str) -> str:
    return f"{scope.folder_of(shell)}/{state.VERDICTS}"


def _first_cause() -> str | None:
    found = markers.of_our_script()
    return found[0].cause if found else None


class _News:
    """Wakes us when something appears in state folders."""

    def __init__(self, folders: Iterable[str]) -> None:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for folder in folders:
            for path in (folder, f"{folder}/{state.FAILURES}", f"{folder}/{state.VERDICTS}"):
                if self._fd >= 0 and _libc.inotify_add_watch(self._fd, path.encode(), _IN_NEWS) < 0:
                    self._close()

    def __enter__(self) -> _News:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    async def wait(self) -> None:
        """Until something has changed, or it is time to look at the shell."""
        if self._fd < 0:
            await asyncio.sleep(BLIND_LOOK)
            return
        loop = asyncio.get_running_loop()
        news = asyncio.Event()
        loop.add_reader(self._fd, news.set)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SHELL_LOOK):
                    await news.wait()
        finally:
            loop.remove_reader(self._fd)
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 1 << 16)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
