"""The two ends of a connection's FIFO, opened without ever blocking the loop.

A FIFO's opening is a meeting: a plain open() waits for the other side, for minutes perhaps. Here a
reader opens at once (which lets its writer go on) and a writer waits for its reader in a thread.
Nothing is ever created: a FIFO that does not exist is an error, not a new regular file.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import fcntl
import os
import select
import shlex
import stat
import termios
from collections.abc import Callable
from pathlib import Path

from punchlib.errors import StreamBroken, UsageError
from punchlib.net.readiness import Readiness
from punchlib.pump.fifo_open import Opening

#: What a pipe is grown to. The kernel's own is 64 KiB.
PIPE_SIZE = 256 * 1024
_PAGE = 4096


class _Budget:
    """Pages of grown pipes: this process takes half of what one user may have.

    Beyond the soft limit the kernel refuses to grow a pipe, and gives 8 KiB to every new one, also
    to those of the user's other programs.
    """

    def __init__(self) -> None:
        self._left: int | None = None

    def take(self) -> bool:
        if self._left is None:
            soft = int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text())
            self._left = soft // 2 if soft else 1 << 30
        if self._left < PIPE_SIZE // _PAGE:
            return False
        self._left -= PIPE_SIZE // _PAGE
        return True

    def give_back(self) -> None:
        if self._left is not None:
            self._left += PIPE_SIZE // _PAGE


_budget = _Budget()


class _Fifo:
    """What both ends have in common: a name for people, a descriptor, its kind."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self._ready: Readiness | None = None
        self._grown = False
        self._examine()

    def _examine(self) -> None:
        mode = os.fstat(self.fd).st_mode
        self.is_pipe = stat.S_ISFIFO(mode)
        # epoll takes pipes, sockets and terminals; a regular file and /dev/null are always ready.
        self._waits = self.is_pipe or stat.S_ISSOCK(mode) or os.isatty(self.fd)

    def _grow(self) -> None:
        if self.is_pipe and _budget.take():
            self._grown = True
            try:
                fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
            except OSError:
                # Not ours to have: this user's pipes are at the limit. A small pipe works too.
                self._shrink()

    def _shrink(self) -> None:
        if self._grown:
            self._grown = False
            _budget.give_back()

    def _readiness(self) -> Readiness:
        if self._ready is None:
            self._ready = Readiness(self.fd)
        return self._ready

    def close(self) -> None:
        """Closes the descriptor; the other side of the FIFO sees an end or a broken pipe."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self._shrink()
            if self._ready is not None:
                self._ready.close()
            os.close(fd)


class FifoReader(_Fifo):
    """The source of a sender: a FIFO, or anything else that can be read."""

    @classmethod
    def open_path(cls, path: str, *, name: str = "") -> FifoReader:
        """Opens at once, whether there is a writer or not.

        Args:
            path: a FIFO, a regular file, /dev/stdin, or /proc/self/fd/N of an O_PATH descriptor.
            name: what people call it, where that is not `path`.

        Raises:
            UsageError: it does not exist or cannot be read.
        """
        name = name or path
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                os.close(fd)
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        except OSError as error:
            raise _cannot_open(name, "read", error) from error
        return cls(name, fd)

    def __init__(self, name: str, fd: int) -> None:
        super().__init__(name, fd)
        self._hung_up = False
        self._count = array.array("i", [0])
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._grow()

    async def available(self, most: int) -> int:
        """Waits for something to read.

        Returns:
            How many bytes can be read now, at most `most`; 0 at the end, that is when a writer
            came and all writers went, or after `hang_up()`.
        """
        while not self._hung_up:
            if not self.is_pipe:
                if self._waits:
                    await self._readiness().readable()
                return 0 if self._hung_up else most
            fcntl.ioctl(self.fd, termios.FIONREAD, self._count)
            if self._count[0]:
                return min(self._count[0], most)
            # Before the first writer came there is no POLLHUP, though a read would say end of file.
            events = self._poll.poll(0)
            if events and events[0][1] & select.POLLHUP and not events[0][1] & select.POLLIN:
                return 0
            await self._readiness().readable()
        return 0

    def is_empty(self) -> bool:
        """A pipe with nothing in it."""
        fcntl.ioctl(self.fd, termios.FIONREAD, self._count)
        return not self._count[0]

    async def read(self, view: memoryview) -> int:
        """Reads what is there into `view`; 0 at the end.

        Raises:
            StreamBroken: the source cannot be read.
        """
        while await self.available(len(view)):
            try:
                return os.readv(self.fd, [view])
            except BlockingIOError:
                continue
            except OSError as error:
                raise StreamBroken(f"cannot read {self.name}: {error.strerror}") from error
        return 0

    def hang_up(self) -> None:
        """The source reads as ended from now on, and its writer gets SIGPIPE at `close()`."""
        self._hung_up = True
        if self._ready is not None:
            self._ready.interrupt()


class FifoWriter(_Fifo):
    """The sink of a receiver: a FIFO, or an existing file or device.

    Attributes:
        is_open: it has had a reader.
    """

    @classmethod
    def open_path(cls, path: str, *, name: str = "") -> FifoWriter:
        """Takes hold of the path; `opened()` waits for the reader.

        Args:
            path: a FIFO, an existing regular file (which is truncated), a device, or
                /proc/self/fd/N of an O_PATH descriptor.
            name: what people call it, where that is not `path`.

        Raises:
            UsageError: it does not exist or cannot be written.
        """
        name = name or path
        try:
            # O_PATH: the script may remove the FIFO while we wait for its reader.
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            raise _cannot_open(name, "write", error) from error
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise _cannot_open(name, "write", OSError(errno.EISDIR, os.strerror(errno.EISDIR)))
        return cls(name, fd)

    def __init__(self, name: str, fd: int) -> None:
        super().__init__(name, fd)
        self.is_open = False
        self._poll = select.poll()
        self._opened: asyncio.Future[None] | None = None
        self._opening: Opening | None = None

    async def opened(self) -> None:
        """Waits until the FIFO has a reader, and opens it; the wait goes on until `close()`.

        Raises:
            UsageError: it cannot be opened for writing.
        """
        if self._opened is None:
            self._opened = asyncio.get_running_loop().create_future()
            self._open_at_once()
        await asyncio.shield(self._opened)

    def close(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.abandon()
        if self._opened is not None:
            self._opened.cancel()
        super().close()

    def _open_at_once(self) -> None:
        """Opens what needs no reader or has one; else leaves the waiting to a thread."""
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        flags |= 0 if self.is_pipe else os.O_TRUNC
        path = f"/proc/self/fd/{self.fd}"
        try:
            self._take(os.open(path, flags))
        except OSError as error:
            if error.errno != errno.ENXIO or not self.is_pipe:
                self._cannot_open(error)
                return
            loop = asyncio.get_running_loop()

            def wake() -> None:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(self._on_opened)

            self._opening = Opening(path, wake)

    def _on_opened(self) -> None:
        """The thread has ended, perhaps because it was abandoned."""
        opening, self._opening = self._opening, None
        if opening is not None:
            try:
                self._take(opening.result())
            except OSError as error:
                self._cannot_open(error)

    def _take(self, fd: int) -> None:
        assert self._opened is not None
        os.close(self.fd)
        self.fd = fd
        self.is_open = True
        self._examine()
        self._grow()
        self._poll.register(fd, select.POLLOUT)
        self._opened.set_result(None)

    def _cannot_open(self, error: OSError) -> None:
        assert self._opened is not None
        self._opened.set_exception(_cannot_open(self.name, "write", error))
        self._opened.exception()  # though nobody may wait any more

    async def write(self, view: memoryview, count: Callable[[int], None]) -> None:
        """Writes all of `view`; waits while the FIFO is full.

        Args:
            view: what to write.
            count: is told of every piece that is in the FIFO.

        Raises:
            BrokenPipeError: the reader has left.
            StreamBroken: the sink cannot be written (a full disk).
        """
        while view:
            try:
                written = os.write(self.fd, view)
                count(written)
                view = view[written:]
            except BlockingIOError:
                await self.wait_writable()
            except BrokenPipeError:
                raise
            except OSError as error:
                raise StreamBroken(f"cannot write {self.name}: {error.strerror}") from error

    def has_room(self) -> bool:
        """A write would not block: there is room, or no reader."""
        return bool(self._poll.poll(0))

    def wait_writable(self) -> asyncio.Future[None]:
        """Is done when there is room in the FIFO, or when its reader has left."""
        return self._readiness().writable()

    async def reader_left(self) -> None:
        """Returns when the FIFO's last reader has left; never for anything but a FIFO."""
        if not self.is_pipe:
            await asyncio.get_running_loop().create_future()
        # On the writing end of a pipe, only an error makes "readable".
        await self._readiness().readable()


def _cannot_open(name: str, how: str, error: OSError) -> UsageError:
    if error.errno == errno.ENOENT:
        return UsageError(
            f"{name} does not exist", next_step=f"make it first: mkfifo {shlex.quote(name)}"
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return UsageError(
            f"cannot {how} {name}: {error.strerror}",
            next_step="raise the limit on open files (ulimit -n), or give one process fewer "
            "connections",
        )
    return UsageError(
        f"cannot {how} {name}: {error.strerror}",
        next_step="pass a FIFO that this process's user may open",
    )
