"""Waiting for a FIFO's reader without ever looking for it.

Only a blocking open() learns of a reader from the kernel: poll says nothing about readers to come,
and inotify reports an open when it has succeeded, which that of a reader does only when there is a
writer (and a user has 128 inotify instances by default). So a thread blocks in open(), and whoever
no longer wants it opens the other end, which lets it go.

`dgsh-tee` uses this too, and starts in milliseconds: nothing is imported here that costs anything.
"""

from __future__ import annotations

import _thread
import os

# As typing.TYPE_CHECKING, which takes 6 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes of stack for a thread that does nothing but open(); there may be hundreds of them.
_STACK = 256 << 10


class Opening:
    """The opening of a FIFO for writing, in a thread of its own.

    Attributes:
        done: the thread has come to its end; read `result()`.
    """

    def __init__(self, path: str, wake: Callable[[], None]) -> None:
        """Begins to wait.

        Args:
            path: the FIFO; /proc/self/fd/N of an O_PATH descriptor is best, for it holds although
                the FIFO is removed. It must stay good until `done`.
            wake: called in the thread when it is done.
        """
        self._path = path
        self._wake = wake
        self._fd = -1
        self._error: OSError | None = None
        self._ended = _thread.allocate_lock()
        self._ended.acquire()
        before = _thread.stack_size(_STACK)
        try:
            _thread.start_new_thread(self._open, ())
        finally:
            _thread.stack_size(before)

    @property
    def done(self) -> bool:
        return not self._ended.locked()

    def result(self) -> int:
        """The descriptor, non-blocking; the caller's to close. When it is `done`, and once.

        Raises:
            OSError: the FIFO cannot be opened.
        """
        if self._error is not None:
            raise self._error
        fd, self._fd = self._fd, -1
        return fd

    def abandon(self) -> None:
        """Ends the wait, and the thread with it; what it has opened is closed again."""
        release = -1
        if not self.done:
            try:
                release = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                return  # a FIFO that we may not read: its thread waits on, asleep
        # The thread may not even have begun: the other end stays open until it has ended.
        with self._ended:
            pass
        for fd in (self._fd, release):
            if fd >= 0:
                os.close(fd)
        self._fd = -1

    def _open(self) -> None:
        try:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
            os.set_blocking(self._fd, False)
        except OSError as error:
            self._error = error
        self._ended.release()
        self._wake()
