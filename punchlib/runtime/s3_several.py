"""`s3-read-several.py DEST {whole|lines} [KEY RANGE ETAG]…`: objects, one after the other, to DEST.

RANGE is FIRST-LAST/SIZE in bytes, as in Content-Range (RFC 9110, 14.4). `whole` takes the objects
as they are; `lines` takes the lines that begin in each range, as `s3-shard-reader.py` does. An ETAG
("" for none) makes sure that it is that very object. However many there are, one process reads
them, and of small ones a few ahead of time: each would cost the time of a request by itself.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from punchlib.config import Config
from punchlib.errors import UsageError
from punchlib.runtime import storage
from punchlib.runtime.pipes import write_all
from punchlib.runtime.s3_get import open_destination
from punchlib.runtime.s3_ranges import Chunk, lines_of

_USAGE = "python3.9 aws/s3-read-several.py DEST {whole|lines} [KEY FIRST-LAST/SIZE ETAG]…"
_RANGE = re.compile(r"(\d{1,18})-(\d{1,18})/(\d{1,18})")
#: Requests ahead of time, and the bytes of an object that one may wait in memory with.
_AHEAD, _SMALL = 4, 1 << 20


@dataclass(frozen=True)
class Part:
    """A range of an object, bytes; `last` counts. One that begins at `size` is empty."""

    key: str
    first: int
    last: int
    size: int
    etag: str = ""

    def words(self) -> tuple[str, str, str]:
        """As arguments."""
        return self.key, f"{self.first}-{self.last}/{self.size}", self.etag


def parse(arguments: Sequence[str]) -> list[Part]:
    """Reads KEY RANGE ETAG, again and again.

    Raises:
        UsageError: it is something else.
    """
    parts = []
    for at in range(0, len(arguments), 3):
        words = arguments[at : at + 3]
        found = _RANGE.fullmatch(words[1]) if len(words) == 3 else None
        if not found:
            raise UsageError(f"{' '.join(words)!r} is no KEY RANGE ETAG", next_step=_USAGE)
        first, last, size = map(int, found.groups())
        parts.append(Part(words[0], first, last, size, words[2]))
    return parts


#: What one read gives.
Data = bytes | memoryview


def read(parts: Iterable[Part], get: Callable[[Part], Iterator[Data]]) -> Iterator[Data]:
    """The parts' bytes, in order.

    Args:
        parts: what to read.
        get: reads one.
    """

    def at_once(part: Part) -> list[Data]:
        return [bytes(data) for data in get(part)]

    with ThreadPoolExecutor(_AHEAD) as pool:
        waiting: deque[Part | Future[list[Data]]] = deque()

        def next_one() -> Iterator[Data]:
            first = waiting.popleft()
            yield from get(first) if isinstance(first, Part) else first.result()

        for part in parts:
            small = part.last - part.first < _SMALL
            waiting.append(pool.submit(at_once, part) if small else part)
            if len(waiting) > _AHEAD:
                yield from next_one()
        while waiting:
            yield from next_one()


def main(argv: Sequence[str]) -> int:
    def body() -> int:
        if len(argv) < 2 or argv[1] not in ("whole", "lines"):
            raise UsageError("DEST and whole or lines are needed", next_step=_USAGE)
        destination, how, *rest = argv
        parts = parse(rest)
        config = Config.from_env()
        bucket = storage.bucket(config)
        # Open first: if S3 refuses, the reader must see an end, not wait for a writer for ever.
        target = open_destination(destination)
        from punchlib.aws.clients import client
        from punchlib.runtime.s3_reader import ObjectReader

        s3 = client("s3", config)

        def get(part: Part) -> Iterator[Data]:
            reader = ObjectReader(s3, bucket, part.key, part.etag)
            if part.first >= part.size:
                return iter(())
            if how == "whole":
                return reader.stream(part.first, part.last)
            return lines_of(reader, part.size, Chunk(part.first, part.last))

        for data in read(parts, get):
            write_all(target, data)
        return 0

    return storage.run("s3-read-several", body)
