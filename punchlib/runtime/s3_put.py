"""`s3-put-object.py KEY SRC`: streams SRC into an object that appears whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from punchlib.config import Config
from punchlib.errors import StorageError, UsageError
from punchlib.runtime import catalogue, commit, events, markers, pending, state, storage
from punchlib.runtime.pipes import CHUNK, STDIN, grow, open_input

_USAGE = "python3.9 aws/s3-put-object.py KEY SRC"
_MIB = 1 << 20
_STOPS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
#: Parts on their way at a time. With the part that is being read this bounds memory.
_WORKERS = 3
#: S3 takes 10,000 parts of at least 5 MiB, but for the last.
MOST_PARTS, LEAST = 10_000, 5 * _MIB
#: A stream's length is not known before its end, so parts grow with their number: 8 MiB for the
#: first tenth (8 GiB), 16 up to four tenths, then 32; in all 250 GiB.
STEPS = ((0.1, 8 * _MIB), (0.4, 16 * _MIB), (1.0, 32 * _MIB))


Steps = Sequence[tuple[float, int]]


def part_size(number: int, count: int = MOST_PARTS, steps: Steps = STEPS) -> int:
    """Bytes of part `number` of at most `count`, counted from 1.

    Raises:
        StorageError: there is no such part.
    """
    for share, size in steps:
        if number <= share * count:
            return size
    whole = sum(part_size(n, count, steps) for n in range(1, count + 1))
    raise StorageError(
        f"the stream is longer than the {count:,} parts that it may have ({whole / (1 << 30):.1f}"
        " GiB)",
        next_step="split the output into several objects, or its input into fewer pieces",
    )


def open_source(path: str) -> int:
    """Opens what is to be put; waits for a FIFO's writer."""
    fd = 0 if catalogue.display_name(path) in ("-", STDIN) else open_input(path)
    grow(fd)
    return fd


def read_up_to(fd: int, size: int) -> bytearray:
    """Reads `size` bytes; fewer only at the end of the input."""
    data = bytearray()
    while len(data) < size and (got := os.read(fd, min(CHUNK, size - len(data)))):
        data += got
    return data


def parts(fd: int, count: int = MOST_PARTS, steps: Steps = STEPS) -> Iterator[bytearray]:
    """Cuts the input into at most `count` parts. All but the last are full."""
    number, ended = 1, False
    while not ended:
        wanted = part_size(number, count, steps)
        data = read_up_to(fd, wanted)
        ended = len(data) < wanted
        if data:
            yield data
        number += 1


class Upload:
    """One multipart upload, from its creation to its pending or aborted end.

    Args:
        s3: a boto3 client.
        bucket, key: where to.
        upload_id: of one that another process has created.
        piece: others put parts of it, too. Parts carry an MD5, and s3 adds no checksum of its own.
    """

    def __init__(
        self, s3: Any, bucket: str, key: str, upload_id: str = "", *, piece: bool = False
    ) -> None:
        self.name = f"s3://{bucket}/{key}"
        self.bytes = 0
        #: What has been sent, as S3 wants to hear it: number and ETag.
        self.parts: list[dict[str, Any]] = []
        self.s3 = s3
        self._md5 = piece
        start = s3.create_multipart_upload
        self.id = upload_id or str(start(Bucket=bucket, Key=key)["UploadId"])
        #: Its record. Nobody completes it as long as it has no parts, but anybody may abort it.
        self.begun: dict[str, Any] = {"bucket": bucket, "key": key, "upload_id": self.id}
        self.begun |= {"parts": None, "put": state.process(), "piece": piece}
        self.begun["env"] = {name: os.environ[name] for name in pending.WHERE if name in os.environ}
        self._where = commit.where(self.begun)

    def send(self, numbered: Iterable[tuple[int, bytearray]]) -> None:
        """Uploads parts, a few at a time."""
        flying: deque[tuple[int, Future[str]]] = deque()

        def land() -> None:
            number, future = flying.popleft()
            self.parts.append({"PartNumber": number, "ETag": future.result()})

        with ThreadPoolExecutor(_WORKERS) as pool:
            try:
                for number, data in numbered:
                    if len(flying) == _WORKERS:
                        land()
                    self.bytes += len(data)
                    flying.append((number, pool.submit(self._send_part, number, data)))
                    del data
                while flying:
                    land()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def facts(self) -> dict[str, str | int]:
        """What there is to tell of it."""
        where = {"aws.s3.bucket": self._where["Bucket"], "aws.s3.key": self._where["Key"]}
        return {**where, "punch.bytes": self.bytes}

    def abort(self) -> None:
        """Aborts on the way to another error, which must not be hidden by a failure here."""
        try:
            commit.abort([self.begun], self.s3)
        except StorageError as error:
            print(
                f"s3-put: {error}\n  its parts cost money until a lifecycle rule removes them",
                file=sys.stderr,
            )

    def _send_part(self, number: int, data: bytearray) -> str:
        sums: dict[str, str] = {}
        if self._md5:
            digest = hashlib.md5(data, usedforsecurity=False).digest()
            sums["ContentMD5"] = base64.b64encode(digest).decode()
        answer = self.s3.upload_part(**self._where, PartNumber=number, Body=data, **sums)
        return str(answer["ETag"])


@contextmanager
def uploading(
    s3: Any, bucket: str, key: str, upload_id: str = "", *, piece: bool = False
) -> Iterator[Upload]:
    """An upload that is aborted where the context is left by an exception.

    Args:
        s3, bucket, key, upload_id, piece: as `Upload` takes them.

    Raises:
        StorageError: S3 refuses.
    """
    # Until its name is here nobody could abort it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        upload = Upload(s3, bucket, key, upload_id, piece=piece)
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    try:
        # So that it is also aborted where this process is killed.
        pending.add(upload.begun, commit.deferred())
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield upload
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        upload.abort()
        raise


def check_others(name: str) -> None:
    """Raises where another component of this script has failed: that looked like an end of input.

    Raises:
        StorageError: one has.
    """
    if failed := markers.of_our_script():
        first = failed[0]
        raise StorageError(
            f"{name} is left as it was, because {first.component} failed: {first.headline}",
            next_step="mend that, then run again",
        )


def settle(upload: Upload) -> None:
    """Completes an upload that has all its parts, unless somebody after us does."""
    whole = {**upload.begun, "parts": upload.parts}
    if folders := commit.deferred():
        pending.add(whole, folders)
    else:
        commit.complete([whole], upload.s3)


def put(fd: int, config: Config, bucket: str, key: str) -> None:
    """Uploads, and completes unless somebody after us does.

    Raises:
        StorageError: S3 refuses, or another component of this node has failed.
    """
    from punchlib.aws.clients import client

    with uploading(client("s3", config), bucket, key) as upload:
        upload.send(enumerate(parts(fd), 1))
        if not upload.parts:
            upload.send([(1, bytearray())])  # there is no upload without a part
        check_others(upload.name)
        events.tell("upload.ended", upload.facts())
        settle(upload)


def main(argv: Sequence[str]) -> int:
    def body() -> int:
        if len(argv) < 2:
            raise UsageError("KEY and SRC are needed", next_step=_USAGE)
        key, source = argv[:2]
        with commit.awaited():
            # Open first: where S3 refuses, the writer must get SIGPIPE, not wait for ever.
            fd = open_source(source)
            if key == "/dev/null":
                while os.read(fd, CHUNK):
                    pass
                return 0
            config = Config.from_env()
            put(fd, config, storage.bucket(config), key)
        return 0

    return storage.run("s3-put", body)
