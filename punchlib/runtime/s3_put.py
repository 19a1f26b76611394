"""`s3-put-object.py KEY SRC`: streams SRC into an object that appears whole or not at all."""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from punchlib.config import Config
from punchlib.errors import StorageError, UsageError
from punchlib.runtime import catalogue, commit, events, markers, state, storage
from punchlib.runtime.pipes import CHUNK, grow, open_input

_USAGE = "python3.9 aws/s3-put-object.py KEY SRC"
_MIB = 1 << 20
_STOPS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
#: Parts on their way at a time. With the part that is being read this bounds memory.
_WORKERS = 3
#: S3 takes 10,000 parts of at least 5 MiB. A stream's length is not known before its end, so
#: parts grow with their number: 8 MiB for the first 8 GiB, in all 250 GiB.
_STEPS = ((1000, 8 * _MIB), (4000, 16 * _MIB), (10_000, 32 * _MIB))


def part_size(number: int) -> int:
    """Bytes of part `number`, counted from 1.

    Raises:
        StorageError: there is no such part.
    """
    for last, size in _STEPS:
        if number <= last:
            return size
    raise StorageError(
        "the stream is longer than an upload of 10,000 parts takes (250 GiB)",
        next_step="split the output into several objects",
    )


def parts(fd: int) -> Iterator[bytearray]:
    """Cuts the input into parts; at least one, which may be empty."""
    number, ended = 1, False
    while not ended:
        wanted = part_size(number)
        data = bytearray()
        while len(data) < wanted:
            got = os.read(fd, min(CHUNK, wanted - len(data)))
            if not got:
                ended = True
                break
            data += got
        if data or number == 1:
            yield data
        number += 1


class Upload:
    """One multipart upload, from its creation to its pending or aborted end."""

    def __init__(self, s3: Any, bucket: str, key: str) -> None:
        self.name = f"s3://{bucket}/{key}"
        self.bytes = 0
        self._s3 = s3
        self._where = {"Bucket": bucket, "Key": key}
        self._where["UploadId"] = s3.create_multipart_upload(**self._where)["UploadId"]

    def send(self, fd: int) -> dict[str, object]:
        """Uploads everything that `fd` gives; returns what completing it needs."""
        done: list[dict[str, object]] = []
        flying: deque[tuple[int, Future[str]]] = deque()

        def land() -> None:
            number, future = flying.popleft()
            done.append({"PartNumber": number, "ETag": future.result()})

        with ThreadPoolExecutor(_WORKERS) as pool:
            try:
                for number, data in enumerate(parts(fd), 1):
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
        return {
            "bucket": self._where["Bucket"],
            "key": self._where["Key"],
            "upload_id": self._where["UploadId"],
            "parts": done,
        }

    def facts(self) -> dict[str, str | int]:
        """What there is to tell of it."""
        where = {"aws.s3.bucket": self._where["Bucket"], "aws.s3.key": self._where["Key"]}
        return {**where, "punch.bytes": self.bytes}

    def abort(self) -> None:
        """Aborts on the way to another error, which must not be hidden by a failure here."""
        upload = {"bucket": self._where["Bucket"], "key": self._where["Key"]}
        try:
            commit.abort([upload | {"upload_id": self._where["UploadId"]}], self._s3)
        except StorageError as error:
            print(
                f"s3-put: {error}\n  its parts cost money until a lifecycle rule removes them",
                file=sys.stderr,
            )

    def _send_part(self, number: int, data: bytearray) -> str:
        answer = self._s3.upload_part(**self._where, PartNumber=number, Body=data)
        return str(answer["ETag"])


def put(fd: int, config: Config, bucket: str, key: str) -> None:
    """Uploads, and completes unless somebody after us does.

    Raises:
        StorageError: S3 refuses, or another component of this node has failed.
    """
    from punchlib.aws.clients import client

    s3 = client("s3", config)
    # Until its name is here nobody could abort it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        upload = Upload(s3, bucket, key)
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        pending = upload.send(fd)
        # A component that died looked like the end of our input.
        if failed := markers.of_our_script():
            first = failed[0]
            raise StorageError(
                f"{upload.name} is left as it was, because {first.component} failed:"
                f" {first.headline}",
                next_step="mend that, then run again",
            )
        events.tell("upload.ended", upload.facts())
        if folder := commit.deferred():
            state.add_pending(pending, folder)
        else:
            commit.complete([pending], s3)
    except BaseException:
        upload.abort()
        raise


def main(argv: Sequence[str]) -> int:
    def body() -> int:
        if len(argv) < 2:
            raise UsageError("KEY and SRC are needed", next_step=_USAGE)
        key, source = argv[:2]
        # Open first: where S3 refuses, the writer must get SIGPIPE, not wait for ever.
        fd = 0 if catalogue.display_name(source) in ("-", "/dev/stdin") else open_input(source)
        grow(fd)
        if key == "/dev/null":
            while os.read(fd, CHUNK):
                pass
            return 0
        config = Config.from_env()
        put(fd, config, storage.bucket(config), key)
        return 0

    return storage.run("s3-put", body)
