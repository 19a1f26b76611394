"""`r_wrap CMD… <F >F`: runs CMD once for each logical block, and frames what it prints.

A block may be larger than memory, CMD may print before it has read everything, or not read at
all: so both directions move at once, by splice where that works. The frames of the output bear
the id of the block; the one that closes a block is written only when CMD ended well, so a block
that is cut off shows as such everywhere downstream.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import sys
import termios

from punchlib.errors import PunchError, UsageError
from punchlib.runtime import blocks, state
from punchlib.runtime.blocks import BlockHeader
from punchlib.runtime.pipes import CHUNK, Mover, grow, read_exactly, splice_refused, write_all
from punchlib.runtime.tool_edge import READER_GONE, run

_USAGE = "r_wrap COMMAND [ARGUMENT…] < FRAMED > FRAMED"
#: grep found nothing; a reader has gone. Everything else that is not 0 is a failure.
_HARMLESS = (0, 1, READER_GONE, -signal.SIGPIPE)


class CommandFailed(PunchError):
    """CMD ended badly; our exit code is its own, as a shell would have it."""

    def __init__(self, message: str, status: int, *, next_step: str = "") -> None:
        super().__init__(message, next_step=next_step)
        self.exit_code = 128 - status if status < 0 else status


class Feed:
    """The payload of one logical block, on its way from our input to CMD.

    Args:
        source: the input's descriptor, not non-blocking: others may share it.
        header: the first piece's header; None when the input is not framed.
        begun: bytes of the payload that were read already.

    Attributes:
        source: as given.
        ended: all of the block has been taken from the input.
        pending: bytes that were read and not yet taken by CMD.
    """

    def __init__(self, source: int, header: BlockHeader | None, begun: bytes = b"") -> None:
        self.source = source
        self._header = header
        self._left = CHUNK if header is None else header.size
        self._splice = True
        self.pending = begun
        self.ended = False
        self._next_piece()

    def give(self, target: int) -> bool:
        """Moves some to CMD without blocking; returns False when the input has nothing now.

        Raises:
            BlockingIOError: only while `pending`: CMD's pipe is full.
            BrokenPipeError: CMD reads no more.
            StreamBroken: the input is cut.
        """
        if self.pending:
            self.pending = self.pending[os.write(target, self.pending) :]
            return True
        if self._splice:
            flags = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
            try:
                self._took(os.splice(self.source, target, min(self._left, CHUNK), flags=flags))
                return True
            except BlockingIOError:
                return False
            except OSError as error:
                if not splice_refused(error):
                    raise
                self._splice = False
        self.pending = self._read()
        return True

    def drop(self) -> None:
        """Takes some from the input that CMD does not want."""
        self.pending = b""
        if not self.ended:
            self._read()

    def _read(self) -> bytes:
        data = os.read(self.source, min(self._left, CHUNK))
        self._took(len(data))
        return data

    def _took(self, size: int) -> None:
        if self._header is None:
            self.ended = not size
            return
        if not size:
            raise blocks.truncated(self._left, self._header)
        self._left -= size
        self._next_piece()

    def _next_piece(self) -> None:
        while self._header is not None and not self._left and not self.ended:
            if self._header.is_last:
                self.ended = True
                return
            head = read_exactly(self.source, blocks.HEADER_SIZE)
            if len(head) < blocks.HEADER_SIZE:
                raise blocks.truncated(blocks.HEADER_SIZE - len(head))
            self._header = blocks.decode(head)
            self._left = self._header.size


def _refused(command: str, error: OSError) -> CommandFailed:
    """As a shell puts it: 126 for what may not be run, 127 for what is nowhere.

    One folder of PATH that we may not read is enough for the system to say EACCES of either.
    """
    found = (f"{folder}/{command}" for folder in os.get_exec_path())
    nowhere = isinstance(error, FileNotFoundError) or (
        "/" not in command and not any(map(os.path.isfile, found))
    )
    return CommandFailed(
        f"cannot run {command}: {os.strerror(errno.ENOENT) if nowhere else error.strerror}",
        127 if nowhere else 126,
        next_step="install it on this machine, or check PATH",
    )


class BlockCommand:
    """One run of CMD.

    Attributes:
        stdin: the write end of its input, None once closed.
        stdout: the read end of its output.
    """

    def __init__(self, argv: list[str]) -> None:
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        self.stdin: int | None = ours_in
        self.stdout = ours_out
        grow(ours_in, 4)
        grow(ours_out, 4)
        os.set_blocking(ours_in, False)
        try:
            self._pid = os.posix_spawnp(
                argv[0],
                argv,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs_in, 0),
                    (os.POSIX_SPAWN_DUP2, theirs_out, 1),
                ],
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores them
            )
        except OSError as error:
            raise _refused(argv[0], error) from error
        os.close(theirs_in)
        os.close(theirs_out)

    def close_stdin(self) -> None:
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    def wait(self) -> int:
        """Waits for its end; the exit status, negative for a signal."""
        self.close_stdin()
        os.close(self.stdout)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def run_block(argv: list[str], block_id: int, feed: Feed, target: int) -> None:
    """Runs CMD on one block and writes its output as frames.

    Raises:
        CommandFailed: CMD cannot be run, or ended badly.
        StreamBroken: the block is cut.
    """
    command = BlockCommand(argv)
    mover = Mover(command.stdout)
    readable = False
    printing = True
    while printing or not feed.ended or feed.pending:
        if command.stdin is not None and feed.ended and not feed.pending:
            command.close_stdin()
        poll = select.poll()
        if printing:
            poll.register(command.stdout, select.POLLIN)
        if command.stdin is not None and (readable or feed.pending):
            poll.register(command.stdin, select.POLLOUT)
        elif not feed.ended:
            poll.register(feed.source, select.POLLIN)
        ready = dict(poll.poll())
        if command.stdout in ready:
            printing = _forward(mover, command.stdout, block_id, target)
        if feed.source in ready:
            readable = True
            if command.stdin is None:
                feed.drop()
        if command.stdin in ready:
            assert command.stdin is not None
            try:
                readable = feed.give(command.stdin)
            except BlockingIOError:
                pass
            except BrokenPipeError:
                command.close_stdin()
                feed.drop()
    status = command.wait()
    if status not in _HARMLESS:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        raise CommandFailed(
            f"{' '.join(argv)[:200]} {how} on block {block_id}",
            status,
            next_step="its own message, if any, is above",
        )
    write_all(target, BlockHeader(block_id, 0, is_last=True).encode())


def _forward(mover: Mover, source: int, block_id: int, target: int) -> bool:
    """Frames what CMD has printed so far; returns False at its end."""
    buffer = bytearray(4)
    fcntl.ioctl(source, termios.FIONREAD, buffer)
    size = int.from_bytes(buffer, sys.byteorder)
    if not size:
        return False
    write_all(target, BlockHeader(block_id, size, is_last=False).encode())
    mover.exactly(target, size)
    return True


def wrap(argv: list[str], source: int, target: int) -> None:
    """Runs CMD on every block of the input. Input that is not framed is one block."""
    head = read_exactly(source, blocks.HEADER_SIZE)
    if not head:
        return
    header = blocks.parse(head)
    if header is None:
        if blocks.is_cut_header(head):
            raise blocks.truncated(blocks.HEADER_SIZE - len(head))
        run_block(argv, 0, Feed(source, None, head), target)
        return
    while True:
        run_block(argv, header.block_id, Feed(source, header), target)
        head = read_exactly(source, blocks.HEADER_SIZE)
        if not head:
            return
        if len(head) < blocks.HEADER_SIZE:
            raise blocks.truncated(blocks.HEADER_SIZE - len(head))
        header = blocks.decode(head)


def main() -> int:
    def body() -> int:
        argv = sys.argv[1:]
        if not argv:
            raise UsageError("no command given", next_step=_USAGE)
        # Components of ours inside CMD belong to this node run, not to the shell in between.
        os.environ["PUNCH_STATE_DIR"] = state.scope().home
        grow(0, 4)
        grow(1, 4)
        wrap(argv, 0, 1)
        return 0

    return run("r_wrap", body)
