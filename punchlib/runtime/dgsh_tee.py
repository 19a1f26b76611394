"""`dgsh-tee -i IN -o OUT [-o OUT]… [-I] [-b SIZE] [-m SIZE] [-f] [-T DIR] [-M]`: a buffer.

-I reads whatever comes and never blocks the writer. Without it input is read only while some
output has nothing left to write. What the outputs have not taken yet stays in memory up to -m,
and beyond that in an unlinked temporary file in -T, so neither a slow nor a late reader stalls
the writer or another reader, and memory is bounded whatever the input. A reader that leaves
retires its output; when none is left we end, and the writer gets SIGPIPE.
"""

from __future__ import annotations

import errno
import os
import select
import sys

from punchlib.errors import UsageError
from punchlib.pump.fifo_open import Opening
from punchlib.runtime.pipes import (
    CHUNK,
    STDIN,
    grow,
    is_pipe,
    open_input,
    require,
    splice_refused,
)
from punchlib.runtime.spool import Spool
from punchlib.runtime.tool_edge import run

_USAGE = "dgsh-tee -i IN -o OUT [-o OUT]… [-I] [-b SIZE] [-m SIZE] [-f] [-T DIR] [-M]"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_DEFAULT_MEMORY = 32 << 20
#: What a busy reader may keep the writer waiting.
_PATIENCE_MS = 10


class TeeOptions:
    """The command line.

    Attributes:
        source: -i, the input.
        targets: -o, the outputs.
        eager: -I.
        buffer: -b, the most that one read takes, in bytes.
        memory: -m, what may be held in memory, in bytes.
        folder: -T, where the spill file goes.
        report: -M, say at the end how much was held.
    """

    def __init__(self) -> None:
        self.source = STDIN
        self.targets: list[str] = []
        self.eager = False
        self.buffer = CHUNK
        self.memory = _DEFAULT_MEMORY
        self.folder = os.environ.get("TMPDIR") or "/tmp"
        self.report = False


def parse(args: list[str]) -> TeeOptions:
    """Reads the command line; letters may be joined, and a value may follow its letter at once.

    Raises:
        UsageError: something in it is unknown or missing.
    """
    options = TeeOptions()
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        if len(arg) < 2 or arg[0] != "-":
            raise UsageError(f"what is {arg!r}?", next_step=_USAGE)
        letters = arg[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in "IfM":
                options.eager |= letter == "I"
                options.report |= letter == "M"  # -f needs nothing: past -m it always spills
                continue
            if letter not in "iobmT":
                raise UsageError(f"unknown option -{letter}", next_step=_USAGE)
            if not letters and not rest:
                raise UsageError(f"-{letter} needs a value", next_step=_USAGE)
            _set(options, letter, letters or rest.pop(0))
            break
    if not options.targets:
        raise UsageError("no output given", next_step=_USAGE)
    return options


def _set(options: TeeOptions, letter: str, value: str) -> None:
    match letter:
        case "i":
            options.source = value
        case "o":
            options.targets.append(value)
        case "b":
            options.buffer = min(_size(value), CHUNK)
        case "m":
            options.memory = _size(value)
        case _:
            options.folder = value


def _size(text: str) -> int:
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if not number.isdecimal() or not int(number) or unit not in _UNITS:
        raise UsageError(f"{text!r} is no size", next_step="a number, with K, M or G after it")
    return int(number) * _UNITS[unit]


class Output:
    """One output and how far it has come.

    Attributes:
        fd: the descriptor; None until a FIFO has its reader.
        done: bytes of the stream that it has taken.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.fd: int | None = None
        self.done = 0
        self._opening: Opening | None = None
        if not os.path.exists(path):  # noqa: PTH110
            if "fifo" in os.path.basename(path).lower():  # noqa: PTH119
                require(path)  # raises: a regular file of that name would lose the data
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))

    def open(self) -> bool:
        """Opens without waiting; returns False while a FIFO has no reader."""
        try:
            if self._path == "/dev/stdout" and not is_pipe(1):
                self.fd = os.dup(1)  # opened anew it would lose its place, and what is there
            else:
                flags = os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC
                self.fd = os.open(self._path, flags)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return False
        return True

    def await_reader(self, opened: int) -> None:
        """Begins to wait for the FIFO's reader; `opened`, an eventfd, says when to `take` it."""
        self._opening = Opening(self._path, lambda: os.eventfd_write(opened, 1))

    def take(self) -> bool:
        """Takes the FIFO that has got its reader; returns False while it has none."""
        assert self._opening is not None
        if self._opening.done:
            self.fd = self._opening.result()
        return self.fd is not None

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


class Tee:
    """The event loop between one input and its outputs."""

    def __init__(self, options: TeeOptions) -> None:
        self._options = options
        self._source = open_input(options.source, os.O_NONBLOCK)
        pipes = 1 + len(options.targets)
        self._pipes = pipes
        self._waiting = [Output(path) for path in options.targets]
        self._live: list[Output] = []
        self._opened = -1
        grow(self._source, pipes)
        self._spool = Spool(options.memory, options.folder)
        self._ended = False
        # With a single output, what nobody has to hold goes from pipe to pipe unseen.
        self._direct = len(options.targets) == 1
        self._patience = select.poll()
        self.total = 0
        self.most_held = 0

    def run(self) -> None:
        """Runs until all is delivered, or no reader is left."""
        poll = select.poll()
        self._open_outputs()
        while True:
            if self._ended:
                self._retire_finished()
            if not self._waiting and not self._live:
                return
            wanted = self._interest()
            for fd, events in wanted.items():
                poll.register(fd, events)
            ready = dict(poll.poll())
            for fd in wanted:
                poll.unregister(fd)
            if self._opened in ready:
                self._take_opened()
            if self._source in ready:
                self._read()
            for output in [o for o in self._live if o.fd in ready]:
                self._write(output)

    def _open_outputs(self) -> None:
        """Opens what can be; for each FIFO without a reader a thread waits in its open()."""
        for output in [o for o in self._waiting if o.open()]:
            self._begin(output)
        if self._waiting:
            self._opened = os.eventfd(0, os.EFD_CLOEXEC)
        for output in self._waiting:
            output.await_reader(self._opened)

    def _take_opened(self) -> None:
        os.eventfd_read(self._opened)
        for output in [o for o in self._waiting if o.take()]:
            self._begin(output)

    def _begin(self, output: Output) -> None:
        assert output.fd is not None
        grow(output.fd, self._pipes)
        self._waiting.remove(output)
        self._live.append(output)
        if self._direct:
            self._patience.register(output.fd, select.POLLOUT)

    def _interest(self) -> dict[int, int]:
        wanted = {o.fd: select.POLLOUT for o in self._live if o.fd is not None and self._owed(o)}
        drained = any(not self._owed(o) for o in self._live)
        if not self._ended and (self._options.eager or drained):
            wanted[self._source] = select.POLLIN
        if self._waiting:
            wanted[self._opened] = select.POLLIN
        return wanted

    def _owed(self, output: Output) -> int:
        return self.total - output.done

    def _read(self) -> None:
        if self._direct and self._live and not self._owed(self._live[0]):
            output = self._live[0]
            assert output.fd is not None
            try:
                moved = os.splice(
                    self._source, output.fd, CHUNK, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
                )
            except BlockingIOError:
                # Its pipe is full. A reader that is merely busy takes more in a moment, and what
                # it takes from pipe to pipe is not copied; a slow one has us hold the data.
                if not self._patience.poll(_PATIENCE_MS):
                    self._hold()
                return
            except BrokenPipeError:
                self._retire(output)
                return
            except OSError as error:
                if not splice_refused(error):
                    raise
                self._direct = False
            else:
                self.total += moved
                output.done += moved
                self._spool.skip(moved)
                self._ended = not moved
                return
        self._hold()

    def _hold(self) -> None:
        try:
            data = os.read(self._source, self._options.buffer)
        except BlockingIOError:
            return
        if not data:
            self._ended = True
            return
        self._spool.append(data)
        self.total += len(data)
        self.most_held = max(self.most_held, self._spool.held)

    def _write(self, output: Output) -> None:
        assert output.fd is not None
        try:
            while self._owed(output):
                output.done += self._spool.write(output.fd, output.done)
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._retire(output)
        self._release()

    def _retire_finished(self) -> None:
        for output in [o for o in self._live if not self._owed(o)]:
            self._retire(output)

    def _retire(self, output: Output) -> None:
        output.close()
        self._live.remove(output)
        self._release()

    def _release(self) -> None:
        outputs = self._live + self._waiting
        if outputs:
            self._spool.release(min(o.done for o in outputs))


def main() -> int:
    def body() -> int:
        options = parse(sys.argv[1:])
        tee = Tee(options)
        tee.run()
        if options.report:
            print(
                f"dgsh-tee: {tee.total} bytes passed, at most {tee.most_held} held at a time",
                file=sys.stderr,
            )
        return 0

    return run("dgsh-tee", body)
