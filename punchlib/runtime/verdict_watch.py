"""Waiting until the wait script has said what it thinks of the stages of our script."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Iterable
from types import TracebackType

from punchlib.errors import Cause
from punchlib.runtime import markers, script_shell, state
from punchlib.runtime.verdicts import Standing, standing

#: Seconds between two looks whether the shell that is to judge still lives; and between two looks
#: at everything where the kernel has no more inotify instances for us.
SHELL_LOOK, BLIND_LOOK = 1.0, 0.05
#: Seconds between two looks whether our script has ended without us.
SCRIPT_LOOK = 5.0
#: Seconds between two looks at what may change without a word, and for how long it may.
SOON = 0.005
PATIENCE = {Standing.ENDING: 5.0, Standing.UNSURE: 1.0}

_libc = ctypes.CDLL(None, use_errno=True)
_IN_ATTRIB, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE_SELF = 0x4, 0x80, 0x100, 0x400
_IN_NEWS = _IN_ATTRIB | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE_SELF


async def upstream_failure(fifo: str = "") -> Cause | None:
    """Why what came out of a FIFO of our script is not whole; None when all is well.

    Waits for the verdicts on stages that have ended, or are about to, and for nothing else.

    Args:
        fifo: its path.
    """
    output = fifo.rpartition("/")[2].encode("utf-8", "surrogateescape")
    try:
        scope = state.scope()
    except OSError as error:
        return Cause(f"its script cannot be found: {error}")
    # The first look finds most scripts settled, and costs no watch.
    if standing(scope, output) is not Standing.SETTLED:
        with _News(scope.folders) as news:
            await _settle(scope, output, news)
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


async def _settle(scope: state.Scope, output: bytes, news: _News) -> None:
    clock = asyncio.get_running_loop().time
    since = clock()
    # What changed before the watch began is seen by the next look.
    while (now := standing(scope, output)) is not Standing.SETTLED:
        if now is Standing.WAITING:
            await news.wait()
            since = clock()
        elif clock() - since > PATIENCE[now]:
            return  # it is busy with something else
        else:
            await asyncio.sleep(SOON)


class _News:
    """Wakes us when something appears in state folders."""

    def __init__(self, folders: Iterable[str]) -> None:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for folder in folders:
            paths = (folder, f"{folder}/{state.FAILURES}", f"{folder}/{state.VERDICTS}")
            for path in map(os.fsencode, paths):
                if self._fd >= 0 and _libc.inotify_add_watch(self._fd, path, _IN_NEWS) < 0:
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
