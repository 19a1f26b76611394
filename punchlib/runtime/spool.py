"""What a dgsh-tee holds: a window of the stream, in memory up to a cap, beyond it on disk."""

from __future__ import annotations

import os
from bisect import bisect_right

from punchlib.errors import PunchError
from punchlib.runtime.pipes import CHUNK, PIPE_SIZE, splice_refused

# As typing.TYPE_CHECKING, which takes 6 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
else:
    from _collections import deque  # the same; `collections` is a third of all that we import

#: A spill file is given back to the disk as a whole, so there are many of this size.
_FILE_SIZE = 256 << 20
#: Reads that are smaller than this are joined, or a slow drip would cost an object each.
_JOIN = 64 << 10


class _Memory:
    """A piece of the window in memory."""

    __slots__ = ("data", "start")

    def __init__(self, start: int, data: bytes) -> None:
        self.start = start
        self.data: bytes | bytearray = data

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, fd: int, offset: int) -> int:
        with memoryview(self.data) as view:
            return os.write(fd, view[offset : offset + CHUNK])

    def close(self) -> None:
        self.data = b""


class _File:
    """A piece of the window in a file that has no name: it vanishes with us, however we end."""

    __slots__ = ("_fd", "_splice", "size", "start")

    def __init__(self, start: int, folder: str) -> None:
        from tempfile import mkstemp

        self.start = start
        self.size = 0
        self._splice = True
        self._fd, path = mkstemp(prefix="dgsh-tee-", dir=folder)
        os.unlink(path)  # noqa: PTH108

    def append(self, data: bytes) -> None:
        done = 0
        with memoryview(data) as view:
            while done < len(data):
                done += os.pwrite(self._fd, view[done:], self.size + done)
        self.size += done

    def write(self, fd: int, offset: int) -> int:
        count = min(CHUNK, self.size - offset)
        if self._splice:
            try:
                return os.splice(self._fd, fd, count, offset_src=offset, flags=os.SPLICE_F_NONBLOCK)
            except OSError as error:
                if not splice_refused(error):
                    raise
                self._splice = False  # the output is no pipe
        return os.write(fd, os.pread(self._fd, min(count, PIPE_SIZE), offset))

    def close(self) -> None:
        os.close(self._fd)


def _start(piece: _Memory | _File) -> int:
    return piece.start


class Spool:
    """A window of the stream, addressed by offsets into the stream.

    Args:
        memory: bytes that may be held in memory; what comes beyond goes to disk.
        folder: where the spill files are made.
    """

    def __init__(self, memory: int, folder: str) -> None:
        self._memory = memory
        self._folder = folder
        self._pieces: deque[_Memory | _File] = deque()
        self._in_memory = 0
        self._end = 0

    @property
    def held(self) -> int:
        """Bytes in the window, in memory and on disk."""
        return self._end - self._pieces[0].start if self._pieces else 0

    def skip(self, size: int) -> None:
        """Moves the end of an empty window on: these bytes went by another way."""
        self._end += size

    def append(self, data: bytes) -> None:
        """Adds to the end of the window.

        Raises:
            PunchError: the disk is full, or refuses.
        """
        if self._in_memory + len(data) > self._memory:
            self._spill(data)
        else:
            self._keep(data)
        self._end += len(data)

    def _keep(self, data: bytes) -> None:
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, _Memory) and last.size + len(data) <= _JOIN:
            if isinstance(last.data, bytes):
                last.data = bytearray(last.data)
            last.data += data
        else:
            self._pieces.append(_Memory(self._end, data))
        self._in_memory += len(data)

    def _spill(self, data: bytes) -> None:
        last = self._pieces[-1] if self._pieces else None
        try:
            if not isinstance(last, _File) or last.size >= _FILE_SIZE:
                last = _File(self._end, self._folder)
                self._pieces.append(last)
            last.append(data)
        except OSError as error:
            raise PunchError(
                f"cannot spill to {self._folder} with {self.held} bytes held: {error.strerror}",
                next_step="make room there, or name another folder with -T, or raise -m",
            ) from error

    def write(self, fd: int, offset: int) -> int:
        """Writes what begins at `offset` of the stream; returns how much was taken."""
        piece = self._pieces[bisect_right(self._pieces, offset, key=_start) - 1]
        return piece.write(fd, offset - piece.start)

    def release(self, offset: int) -> None:
        """Forgets everything before `offset`, as far as whole pieces allow."""
        while self._pieces:
            piece = self._pieces[0]
            if piece.start + piece.size > offset:
                return
            if isinstance(piece, _Memory):
                self._in_memory -= piece.size
            piece.close()
            self._pieces.popleft()
