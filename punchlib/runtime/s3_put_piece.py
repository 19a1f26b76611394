"""`s3-put-piece.py KEY SRC N/OF FROM TO`: SRC is piece N of an object of OF pieces.

Each piece is put by a process of its own, on any machine, as parts of one multipart upload; what
they say to each other goes from piece to piece: FROM the one before (of the first it is '') TO the
one after (of the last it is ''). The first creates the upload, the last has it completed.

S3 takes no part of less than 5 MiB but the last of all. So the first 5 MiB of a piece are kept
until what the piece before has left over is there, and what is left over in the end goes to the
next; a piece that is smaller goes there as a whole. Everything else is on its way at once.

What goes from piece to piece:

    {"upload_id": TEXT}                 a line, at once
    {"left": BYTES}                     a line, when the piece has ended, and so many bytes
    [{"PartNumber": N, "ETag": TEXT}…]  of all pieces up to here, to the end of file
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from punchlib.aws.errors import is_code
from punchlib.config import Config
from punchlib.errors import StorageError, UsageError
from punchlib.runtime import commit, events, storage
from punchlib.runtime.pipes import open_input, open_output, write_all
from punchlib.runtime.s3_put import (
    LEAST,
    MOST_PARTS,
    STEPS,
    Upload,
    check_others,
    open_source,
    parts,
    read_up_to,
    settle,
    uploading,
)

#: Of one object: each has ten parts at least.
MOST_PIECES = MOST_PARTS // 10
#: As `s3_put.STEPS`. Pieces are not always of one size, so the last parts of each may be large:
#: 4 GiB for each of 128 pieces, 32 for each of 16.
_STEPS = (*STEPS[:2], (0.7, 32 << 20), (1.0, 128 << 20))
_USAGE = "python3.9 aws/s3-put-piece.py KEY SRC N/OF FROM TO"


class Piece:
    """The parts of one piece.

    Args:
        number: from 1.
        of: how many there are.
        fd: the piece's bytes.

    Attributes:
        first: the number of its first part; that one has the bytes from before.
        left: what is left over, when `body` has ended.
    """

    def __init__(self, number: int, of: int, fd: int) -> None:
        self._count = MOST_PARTS // of
        self._fd = fd
        self.first = (number - 1) * self._count + 1
        self.left = bytearray()

    def head(self) -> bytearray:
        """The first 5 MiB; fewer where the piece is smaller."""
        return read_up_to(self._fd, LEAST)

    def body(self) -> Iterator[tuple[int, bytearray]]:
        """What follows the head, in parts with their numbers; each has 5 MiB at least."""
        cut = parts(self._fd, self._count - 1, _STEPS)
        for number, data in enumerate(cut, self.first + 1):
            if len(data) < LEAST:
                self.left = data
            else:
                yield number, data


class Before:
    """What the piece before says; the first has none.

    Raises:
        StorageError: it has ended in the middle.
    """

    def __init__(self, fd: int | None) -> None:
        # The descriptor stays open until this process ends (runtime/pipes.py).
        self._file = None if fd is None else io.BufferedReader(io.FileIO(fd, closefd=False))

    def upload_id(self) -> str:
        return str(self._line("upload_id")) if self._file else ""

    def left(self) -> bytes:
        if self._file is None:
            return b""
        size = self._line("left")
        data = self._file.read(size)
        if len(data) != size:
            self._broken()
        return data

    def parts(self) -> list[dict[str, Any]]:
        if self._file is None:
            return []
        try:
            return list(json.loads(self._file.read()))
        except ValueError:
            self._broken()

    def _line(self, name: str) -> Any:
        assert self._file
        try:
            return json.loads(self._file.readline())[name]
        except (ValueError, KeyError, TypeError):
            self._broken()

    def _broken(self) -> NoReturn:
        raise StorageError("the piece before this one has ended too early", reported_by_peer=True)


class After:
    """Tells the next piece; after the last there is none."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def tell(self, what: object, data: bytes | bytearray = b"") -> None:
        if self._fd is not None:
            write_all(self._fd, json.dumps(what).encode() + b"\n", memoryview(data))


def send(upload: Upload, piece: Piece, before: Before, after: After, *, last: bool) -> None:
    """Uploads a piece; of the last, all that has been left over too.

    Postcondition: `upload.parts` are those of all pieces up to this one.
    """
    head = piece.head()
    full = len(head) == LEAST
    if full:
        upload.send(piece.body())
        if not last:
            # The next need not wait for what comes before us.
            after.tell({"left": len(piece.left)}, piece.left)
    begin = bytearray(before.left()) + head
    if full or len(begin) >= LEAST:
        upload.send([(piece.first, begin)])
        begin = bytearray()
    if last:
        rest = begin + piece.left
    elif not full:
        after.tell({"left": len(begin)}, begin)
    upload.parts = sorted([*before.parts(), *upload.parts], key=lambda part: part["PartNumber"])
    if last and (rest or not upload.parts):
        upload.send([(MOST_PARTS, rest)])


def put(fds: tuple[int, int | None, int | None], number: int, of: int, key: str) -> None:
    """Puts a piece.

    Args:
        fds: of the piece, of what comes from the piece before, and goes to the one after.

    Raises:
        StorageError: S3 refuses, or another component of this node or another piece has failed.
    """
    from punchlib.aws.clients import client

    config = Config.from_env()
    bucket = storage.bucket(config)
    before, after = Before(fds[1]), After(fds[2])
    # With checksums of its own S3 wants consecutive part numbers (CompletedPart in its API); what
    # boto3 adds by itself is one.
    s3 = client("s3", config, request_checksum_calculation="when_required")
    with uploading(s3, bucket, key, before.upload_id(), piece=True) as upload:
        after.tell({"upload_id": upload.id})
        try:
            send(upload, Piece(number, of, fds[0]), before, after, last=number == of)
        except Exception as error:
            check_others(upload.name)  # what stands behind it says more
            if is_code(error, "NoSuchUpload"):
                why = f"another piece of {upload.name} has failed, and the upload was aborted"
                raise StorageError(why, reported_by_peer=True) from error
            raise
        check_others(upload.name)
        events.tell("upload.ended", upload.facts())
        if number == of:
            settle(upload)
        else:
            after.tell(upload.parts)


def main(argv: Sequence[str]) -> int:
    def body() -> int:
        if len(argv) != 5:
            raise UsageError("five arguments are needed", next_step=_USAGE)
        key, source, piece, before, after = argv
        found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", piece)
        number, of = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= of <= MOST_PIECES:
            raise UsageError(f"{piece!r} is no N/OF", next_step=_USAGE)
        if bool(before) != (number > 1) or bool(after) != (number < of):
            raise UsageError(
                "the first piece has no FROM and the last no TO; all others have both",
                next_step=_USAGE,
            )
        with commit.awaited():
            # Open first: where S3 refuses, the writer must get SIGPIPE, not wait for ever.
            fd = open_source(source)
            told = open_output(after) if after else None
            heard = open_input(before) if before else None
            put((fd, heard, told), number, of, key)
        return 0

    return storage.run("s3-put-piece", body)
