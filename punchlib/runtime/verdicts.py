"""What the wait script thinks of the stages of our script, and waiting until it has said so.

A FIFO's end is the end of whoever wrote it, and only the shell that started a stage learns how it
ended. So before a sender says END it asks: which stages are dead *now*, and not yet judged?
For those it waits. It never waits for a stage that runs: that one may need our END, by way of
another machine (a splitter and a merger in one script).

A stage may be a shell or a wrapper whose command has died, `( sort; exit $? )`, and which is about
to say so by its own end. What is on its way to an end is left to get there: a process that has a
dead child, or a shell that has none any more and does not sleep.

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
import enum
import os
from collections.abc import Iterable, Sequence
from types import TracebackType

from punchlib.errors import Cause
from punchlib.runtime import markers, script_shell, state

#: Seconds between two looks whether the shell that is to judge still lives; and between two looks
#: at everything where the kernel has no more inotify instances for us.
SHELL_LOOK, BLIND_LOOK = 1.0, 0.05
#: Seconds between two looks whether our script has ended without us.
SCRIPT_LOOK = 5.0
#: Seconds between two looks at a stage that seems to be ending, and for how long it may seem so.
ENDING_LOOK, ENDING_TIME = 0.005, 5.0

_libc = ctypes.CDLL(None, use_errno=True)
_IN_ATTRIB, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE_SELF = 0x4, 0x80, 0x100, 0x400
_IN_NEWS = _IN_ATTRIB | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE_SELF


class Standing(enum.Enum):
    """What a sender at its FIFO's end is to do."""

    SETTLED = "ask for the first cause, or say END"
    #: Some stage seems to be on its way to an end, of which no file tells.
    ENDING = "look again soon"
    WAITING = "wait for news"


async def upstream_failure() -> Cause | None:
    """Why what came out of a FIFO of our script is not whole; None when all is well.

    Waits for the verdicts on stages that have ended, and for nothing else.
    """
    try:
        scope = state.scope()
    except OSError as error:
        return Cause(f"its script cannot be found: {error}")
    # The first look finds most scripts settled, and costs no watch.
    if standing(scope) is not Standing.SETTLED:
        with _News(scope.folders) as news:
            await _settle(scope, news)
    found = markers.of_our_script()
    return found[0].cause if found else None


async def script_ended() -> None:
    """Returns when a script with a wait script is over, although its stages, such as we, are not.

    The wait script waits for every stage, and ends those that are left after a failure. What it
    cannot reach, behind a wrapper or in `<( … )`, has to notice by itself: its peer would wait for
    it, and it for a FIFO whose other end nobody opens any more.
    """
    scope = None
    with contextlib.suppress(OSError):  # there is no /proc to look into
        scope = state.scope()
    if scope is None or not scope.sourcing:
        await asyncio.Event().wait()  # nothing tells when it is over
        return
    while any(script_shell.find(shell, scope.proc) for shell in scope.sourcing):
        await asyncio.sleep(SCRIPT_LOOK)


async def _settle(scope: state.Scope, news: _News) -> None:
    clock = asyncio.get_running_loop().time
    patience = clock() + ENDING_TIME
    # What changed before the watch began is seen by the next look.
    while (now := standing(scope)) is not Standing.SETTLED:
        if now is Standing.ENDING:
            if clock() > patience:
                return  # it is busy with something else
            await asyncio.sleep(ENDING_LOOK)
        else:
            await news.wait()
            patience = clock() + ENDING_TIME


def standing(scope: state.Scope) -> Standing:
    """How things are now with the stages of our script."""
    if markers.failures(scope.folders, scope.proc):
        return Standing.SETTLED
    shell = judge(scope, scope.awaited)
    if scope.orphans:
        shell = _adopter(scope)
        if shell is None and any(_will_begin(scope, s) for s in scope.awaited):
            return Standing.WAITING
        if shell is None:
            state.mark_failed("wait", "the shell that started it had ended: nobody vouches for it")
    if shell is None:
        return Standing.SETTLED
    judging = script_shell.find(shell, scope.proc) is not None
    # Asked in this order: the shell's last words came before its end.
    stages = _unjudged(scope, shell)
    if stages is not None:
        processes = [script_shell.find(stage, scope.proc) for stage in stages]
        if None not in processes:
            ending = any(process and process.is_ending() for process in processes)
            return Standing.ENDING if ending else Standing.SETTLED
    if judging:
        return Standing.WAITING
    state.mark_failed("wait", "the shell of the script ended before it had judged all stages")
    return Standing.SETTLED


def judge(scope: state.Scope, candidates: Sequence[str]) -> str | None:
    """The shell that judges our script's stages: whose wait script has begun, or will.

    Args:
        scope: ours.
        candidates: those that will: `scope.awaited`, or all of `scope.sourcing` for somebody who
            will not wait for them.
    """
    for shell in scope.shells:
        if _has_begun(scope, shell):
            return shell
    living = [s for s in candidates if script_shell.find(s, scope.proc)]
    last = living or candidates
    return last[-1] if last else None


def _adopter(scope: state.Scope) -> str | None:
    """The shell among whose stages an orphan is."""
    for shell in scope.shells:
        stage = f"{_verdicts(scope, shell)}/{shell}.stage."
        if any(os.path.exists(stage + name) for name in scope.orphans):  # noqa: PTH110
            return shell
    return None


def _will_begin(scope: state.Scope, shell: str) -> bool:
    """Has this shell's wait script yet to name its stages?"""
    return not _has_begun(scope, shell) and script_shell.find(shell, scope.proc) is not None


def _has_begun(scope: state.Scope, shell: str) -> bool:
    return os.path.exists(f"{_verdicts(scope, shell)}/{shell}.begun")  # noqa: PTH110


def _unjudged(scope: state.Scope, shell: str) -> list[str] | None:
    """The stages that have no verdict; None before the wait script has begun."""
    try:
        names = set(os.listdir(_verdicts(scope, shell)))  # noqa: PTH208
    except OSError:
        return None  # the folder is gone: `failures` says so
    if f"{shell}.begun" not in names:
        return None
    prefix = f"{shell}.stage."
    stages = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return [stage for stage in stages if f"{shell}.good.{stage}" not in names]


def _verdicts(scope: state.Scope, shell: str) -> str:
    return f"{scope.folder_of(shell)}/{state.VERDICTS}"


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
