"""What a pipeline of `punch sh` reads and writes: files, stdin, objects of the bucket."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import sys
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from punchlib.aws.clients import client
from punchlib.aws.errors import translate
from punchlib.cli.options import pairs
from punchlib.cli.run import bucket_config
from punchlib.errors import StorageError, UsageError
from punchlib.jobs import storage
from punchlib.runtime.s3_reader import ObjectReader
from punchlib.sh.object_patterns import S3, ObjectPattern
from punchlib.sh.pieces import Input

#: What a run puts into the bucket, and takes away again.
PREFIX = "punch-sh"
#: Bytes of a file that are read to see whether it has as many as it says.
_LOOK = 1 << 16


class Objects:
    """The inputs, as objects of the bucket.

    Attributes:
        puts: key -> file, for what must be put there first.
        token: of this run.
    """

    def __init__(self, local: bool, given: list[str], folder: Path) -> None:
        self.local = local
        self.token = secrets.token_hex(8)
        self.puts: dict[str, Path] = {}
        self._folder = folder
        self._found: dict[str, tuple[Input, Path | None]] = {}
        if given and not local:
            raise UsageError("--put is for --local", next_step="name the file in the pipeline")
        self._given = pairs("--put", given)

    def key(self, name: str) -> str:
        """The key of s3://BUCKET/KEY.

        Raises:
            UsageError: it is not in the bucket that nodes use.
        """
        bucket, _, key = name.removeprefix(S3).partition("/")
        if not bucket or not key:
            raise UsageError(f"{name} is not s3://BUCKET/KEY")
        if not self.local and bucket != self._bucket:
            raise UsageError(
                f"{name} is not in the bucket {self._bucket}, which the workers use",
                next_step=f"export AWS_BUCKET={bucket}",
            )
        return key

    def matching(self, pattern: ObjectPattern) -> list[str]:
        """The objects that a pattern stands for.

        Raises:
            UsageError: there is none, or it is not in the bucket that nodes use.
            StorageError: the bucket refused.
        """
        if self.local:
            return pattern.choose(self._given)
        self.key(pattern.text)
        listed = storage.listed(self._s3, self._bucket, pattern.prefix)
        found = {o["Key"]: o for o in listed if not o["Key"].endswith("/")}
        names = pattern.choose(found)
        for name in names:  # what is listed need not be asked for again
            key = self.key(name)
            self._found[name] = _input(key, found[key]["Size"], found[key]["ETag"]), None
        return names

    def find(self, name: str) -> Input:
        """The object that holds what a name of the pipeline stands for.

        Raises:
            UsageError: there is no such file.
            StorageError: there is no such object.
        """
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name][0]

    def _find(self, name: str) -> tuple[Input, Path | None]:
        if not name.startswith(S3):
            file = self._spooled() if name == "-" else Path(name)
            return self._uploaded(f"{PREFIX}/{self.token}/input{len(self.puts) + 1}", file)
        key = self.key(name)
        if not self.local:
            head = self._head(key)
            return _input(key, head["ContentLength"], head["ETag"]), None
        if key not in self._given:
            raise UsageError(
                f"{name}: with --local there is no such object", next_step=f"--put {key}=FILE"
            )
        return self._uploaded(key, self._given[key])

    def _uploaded(self, key: str, file: Path) -> tuple[Input, Path]:
        try:
            found = file.stat()
            regular = stat.S_ISREG(found.st_mode)
            with file.open("rb") as opened:
                # Another may have nothing to read for ever.
                begin = len(opened.read(_LOOK)) if regular else 0
        except OSError as error:
            raise UsageError(f"{file} cannot be read: {error.strerror}") from error
        if not regular:
            raise UsageError(f"{file} is no regular file", next_step=f"cat {file} | punch sh …")
        if begin != min(found.st_size, _LOOK):  # in /proc and /sys
            raise UsageError(
                f"{file} says that it has {found.st_size} bytes, and has others",
                next_step=f"cat {file} | punch sh …",
            )
        self.puts[key] = file
        return Input(key, found.st_size), file

    def _spooled(self) -> Path:
        file = self._folder / "stdin"
        with file.open("wb") as spool:
            if not sys.stdin.isatty():
                _copy(sys.stdin.buffer, spool)
        return file

    def _head(self, key: str) -> Any:
        try:
            return self._s3.head_object(Bucket=self._bucket, Key=key)
        except Exception as error:
            raise translate(error, f"{S3}{self._bucket}/{key}") or error from error

    @cached_property
    def _bucket(self) -> str:
        return bucket_config().bucket or ""

    @cached_property
    def _s3(self) -> Any:
        return client("s3", bucket_config())

    def exists(self, key: str) -> bool:
        try:
            self._head(key)
        except StorageError as error:
            if error.code in ("404", "NoSuchKey", "NotFound"):
                return False
            raise
        return True

    def without_newline(self, names: tuple[str, ...]) -> str:
        """The first but the last of several that does not end with a newline: its last line goes
        on in the next; "" where there is none."""
        for name in names[:-1]:
            found, file = self._found[name]
            if not found.size:
                continue
            if file:
                with file.open("rb") as content:
                    content.seek(-1, os.SEEK_END)
                    end = content.read(1)
            else:
                reader = ObjectReader(self._s3, self._bucket, found.key, found.etag)
                end = b"".join(reader.stream(found.size - 1))
            if end != b"\n":
                return name
        return ""

    def sweep(self) -> None:
        """Takes what the run put into the bucket away; a local one is gone by itself."""
        if not self.local:
            storage.delete_prefix(self._s3, self._bucket, f"{PREFIX}/{self.token}/")


def _input(key: str, size: Any, etag: Any) -> Input:
    """As S3 tells of an object."""
    return Input(key, int(size), str(etag).strip('"'))


def target(name: str | None, objects: Objects, *, force: bool) -> Path | str:
    """Where the result goes: a file, `storage.STDOUT`, or a key of the bucket.

    Raises:
        UsageError: it exists, or cannot be written.
    """
    if name is None:
        return storage.STDOUT
    if name.startswith(S3):
        key = objects.key(name)
        if objects.local:
            raise UsageError(
                f"{name}: with --local there is no S3 that stays", next_step="write > FILE"
            )
        if not force and objects.exists(key):
            raise UsageError(f"{name} exists", next_step="--force writes over it")
        return key
    file = Path(name)
    if file == storage.STDOUT:
        file = Path("./-").absolute()
    storage.check_target(file, name)
    if file.exists() and not force:
        raise UsageError(f"{name} exists", next_step="--force writes over it")
    return file


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    try:
        shutil.copyfileobj(source, target, 1 << 20)
    except OSError as error:
        raise UsageError(f"stdin cannot be kept: {error.strerror}") from error
