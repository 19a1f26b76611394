"""What a script writes: passed on line by line as it comes, up to a limit; its end is kept."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

from punchlib.errors import escape

#: Bytes kept.
TAIL = 8192
#: Bytes passed on; of what comes after them only the end is shown.
LIMIT = 1 << 20
#: A line longer than this is passed on in pieces.
_LONGEST = 4096


class StderrTail:
    """A pipe whose reader copies each line to our own stderr, marked with name and time.

    Args:
        name: whose it is.
        heard: is told each line, as it is shown.

    Attributes:
        name, heard: the same.

    Use: give `writer()` to the child, `start()` once it runs, `finish()` when it has ended.
    """

    def __init__(self, name: str, heard: Callable[[str], object] = len) -> None:
        self.name = name
        self.heard = heard
        self._began = time.monotonic()
        self._read, self._write = os.pipe()
        self._kept = bytearray()
        self._shown = 0
        self._omitted = 0
        self._thread = threading.Thread(target=self._copy, name=f"stderr {name}", daemon=True)

    def writer(self) -> int:
        """The end for the child."""
        return self._write

    def start(self) -> None:
        os.close(self._write)
        self._thread.start()

    def finish(self) -> None:
        """Waits for the end of the text, though not for a stray that keeps the pipe open."""
        if self._thread.ident is None:  # the child could not be started
            os.close(self._write)
            os.close(self._read)
            return
        self._thread.join(timeout=2.0)

    def text(self) -> str:
        return bytes(self._kept).decode(errors="replace")

    def _copy(self) -> None:
        line = bytearray()
        with open(self._read, "rb", buffering=0) as pipe:
            while chunk := pipe.read(65536):
                self._kept += chunk
                del self._kept[:-TAIL]
                if self._omitted or self._shown > LIMIT:
                    self._omitted += len(chunk)
                    continue
                line += chunk
                while (end := line.find(b"\n") + 1) or len(line) > _LONGEST:
                    end = min(end or _LONGEST, _LONGEST)
                    self._show(bytes(line[:end]))
                    del line[:end]
        if line:
            self._show(bytes(line))
        if self._omitted:
            self._show(b"... %d bytes are not shown; these are the last:" % self._omitted)
            for last in bytes(self._kept[-min(self._omitted, TAIL) :]).splitlines():
                self._show(last)

    def _show(self, line: bytes) -> None:
        at = time.monotonic() - self._began
        text = escape(line.decode(errors="replace").rstrip("\n").expandtabs(), 2 * _LONGEST)
        self.heard(text)
        marked = f"[{self.name} +{at:.3f}s] {text}\n"
        self._shown += len(marked)
        # One write a line: several scripts share the stream.
        sys.stderr.write(marked)
        sys.stderr.flush()
