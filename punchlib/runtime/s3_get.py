"""`s3-get-object.py KEY DEST [bytes=A-B]`: streams an object, or a raw range of it, to DEST."""

from __future__ import annotations

import os
from collections.abc import Sequence

from punchlib.config import Config
from punchlib.errors import UsageError
from punchlib.runtime import catalogue, storage
from punchlib.runtime.pipes import grow, require, write_all

_USAGE = "python3.9 aws/s3-get-object.py KEY DEST [bytes=A-B]"


def open_destination(path: str) -> int:
    """Opens where an object goes: a FIFO, a file, /dev/stdout.

    A missing path becomes a file, unless it has the name or the place of a FIFO.
    """
    if catalogue.display_name(path) in ("-", "/dev/stdout"):
        return 1
    if not os.path.exists(path) and "fifo" in os.path.basename(path).lower():  # noqa: PTH110, PTH119
        require(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    fd = os.open(path, flags, 0o666)
    grow(fd)
    return fd


def parse_range(text: str) -> tuple[int, int | None]:
    """Reads `bytes=A-B` or `bytes=A-` as (first, last); both count.

    Raises:
        UsageError: it has another form.
    """
    first, dash, last = text.removeprefix("bytes=").partition("-")
    if text.startswith("bytes=") and dash and first.isdecimal() and last.isdecimal():
        return int(first), int(last)
    if text.startswith("bytes=") and dash and first.isdecimal() and not last:
        return int(first), None
    raise UsageError(f"{text!r} is no range", next_step="use bytes=FIRST-LAST, both inclusive")


def main(argv: Sequence[str]) -> int:
    def body() -> int:
        if len(argv) < 2:
            raise UsageError("KEY and DEST are needed", next_step=_USAGE)
        key, destination, *rest = argv
        first, last = parse_range(rest[0]) if rest and rest[0] else (0, None)
        config = Config.from_env()
        bucket = storage.bucket(config)
        # Open first: if S3 refuses, the reader must see an end, not wait for a writer for ever.
        target = open_destination(destination)
        from punchlib.aws.clients import client
        from punchlib.runtime.s3_reader import ObjectReader

        reader = ObjectReader(client("s3", config), bucket, key)
        for data in reader.stream(first, last):
            write_all(target, data)
        return 0

    return storage.run("s3-get", body)
