"""The second step of a put: complete what is whole, abort what is not.

An S3 multipart upload is invisible until it is completed, so a put that has uploaded every part
can wait until somebody knows that all is well (docs/architecture.md). That is the job runner, the
handler, or the wait script; the last through `punch-commit complete|abort STATE_DIR SHELL`.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from punchlib.aws.errors import is_code, translate
from punchlib.config import Config
from punchlib.errors import StorageError, UsageError
from punchlib.runtime import markers, pending, state, storage, verdicts

_USAGE = "punch-commit complete|abort|wait STATE_DIR SHELL"
#: Seconds between two looks at a put that we wait for, and before we say that we do.
_LOOK, _PATIENCE = 0.05, 10.0


def deferred() -> list[str]:
    """The state folders of whoever will complete what we put; none where nobody comes after us.

    They are several where it cannot be told yet which shell will. The first that does takes the
    record out of all.

    Raises:
        StorageError: somebody was to, and is dead: who could say that our input was whole?
    """
    if os.environ.get("PUNCH_COMMIT"):
        return state.scope().folders[:1]
    try:
        # A small put may end before its script has started its last stage, and the wait script.
        return list(dict.fromkeys(_judges().values()))
    except LookupError as error:
        raise StorageError(str(error)) from None


@contextlib.contextmanager
def awaited() -> Iterator[None]:
    """While it lasts, the wait script that settles what we put waits for us."""
    try:
        shells = _judges()
    except LookupError:
        shells = {}  # `deferred` says so
    pending.begin(shells)
    yield
    pending.end(shells)


def _judges() -> dict[str, str]:
    """The shells of which one will judge our script's stages, and the state folder of each."""
    scope = state.scope()
    return {shell: scope.folder_of(shell) for shell in verdicts.judges(scope)}


def wait_for_puts(folder: str, shell: str) -> None:
    """Waits until no put runs that is this shell's to settle.

    Raises:
        StorageError: something has failed meanwhile.
    """
    if not pending.puts(folder, shell):
        return
    since = time.monotonic()
    told = False
    while running := [put for put in pending.puts(folder, shell) if _lives(put)]:
        if any(_waits_for(shell, put) for put in running):
            raise StorageError(
                "a put reads what the shell of its script still writes, and would never end",
                next_step="close it in the script (exec >&-) before the wait script",
            )
        if not told and time.monotonic() - since > _PATIENCE:
            told = True
            print("punch-commit: waiting for a put that still runs", file=sys.stderr, flush=True)
        time.sleep(_LOOK)
    if failed := markers.failures([folder], state.scope().proc):
        raise StorageError(f"{failed[0].component} failed: {failed[0].headline}")


def _lives(put: str) -> bool:
    # A fork of the engine is known to its siblings only. If we are none, its engine is gone.
    known = state.in_engine() or not put.startswith(state.IN_ENGINE)
    return known and state.runs(put, state.scope().proc)


def _waits_for(shell: str, put: str) -> bool:
    """Does the shell itself keep the input of a put open?"""
    proc = state.scope().proc
    written = _pipes(f"{proc}/{shell.partition('-')[0]}", (os.O_WRONLY, os.O_RDWR))
    process = put.removeprefix(state.IN_ENGINE)
    theirs = proc if process == put else "/proc"
    return not written.isdisjoint(_pipes(f"{theirs}/{process.partition('-')[0]}", (os.O_RDONLY,)))


def _pipes(process: str, modes: tuple[int, ...]) -> set[tuple[int, int]]:
    """The pipes that a process, a folder of /proc, has open in one of these modes."""
    found = set()
    with contextlib.suppress(OSError):  # it has ended
        for fd in Path(process, "fd").iterdir():
            flags = int(Path(process, "fdinfo", fd.name).read_text().split()[3], 8)
            status = fd.stat()
            opened = not flags & os.O_PATH and flags & os.O_ACCMODE in modes
            if opened and stat.S_ISFIFO(status.st_mode):
                found.add((status.st_dev, status.st_ino))
    return found


def complete(uploads: Iterable[Mapping[str, Any]], s3: Any) -> None:
    """Completes uploads: the objects appear, in order. All are tried, and what fails is aborted.

    Args:
        uploads: what `pending.uploads()` or a handler's result holds. Of one without parts nobody
            has said that it is whole. Where it is a piece another node has them.
        s3: a boto3 client.

    Raises:
        StorageError: at least one could not be completed; names the first.
    """
    first: StorageError | None = None
    failed = []
    for upload in uploads:
        if upload["parts"] is None and upload.get("piece"):
            continue
        try:
            _complete(upload, s3)
        except StorageError as error:
            failed.append(upload)
            first = first or error
    if first:
        # Or it could appear later, after we have said that it does not.
        with contextlib.suppress(StorageError):
            abort(failed, s3)
        raise first


def abort(uploads: Iterable[Mapping[str, Any]], s3: Any) -> None:
    """Aborts uploads: nothing appears, what was there stays. An upload that is gone is no error.

    Raises:
        StorageError: at least one could not be aborted; names the first.
    """
    first: StorageError | None = None
    for upload in uploads:
        try:
            s3.abort_multipart_upload(**where(upload))
        except Exception as error:
            if is_code(error, "NoSuchUpload"):
                continue
            first = first or _translated(error, upload, "was not aborted")
    if first:
        raise first


def _complete(upload: Mapping[str, Any], s3: Any) -> None:
    if upload["parts"] is None:
        raise StorageError(
            f"{_name(upload)} began, and nobody says that all of it is there",
            next_step="look what became of its s3-put, and let the script wait for that",
        )
    parts = {"Parts": upload["parts"]}
    try:
        s3.complete_multipart_upload(**where(upload), MultipartUpload=parts)
    except Exception as error:
        raise _translated(error, upload, "was not completed") from error


def where(upload: Mapping[str, Any]) -> dict[str, str]:
    """As S3 wants to hear which upload is meant."""
    return {"Bucket": upload["bucket"], "Key": upload["key"], "UploadId": upload["upload_id"]}


def _name(upload: Mapping[str, Any]) -> str:
    return f"the upload to s3://{upload['bucket']}/{upload['key']}"


def _translated(error: Exception, upload: Mapping[str, Any], what: str) -> StorageError:
    known = translate(error, f"{_name(upload)} {what}")
    if known is None:
        raise error
    return known


def main(argv: Sequence[str]) -> int:
    """`punch-commit complete|abort|wait STATE_DIR SHELL`: for that shell's wait script."""

    def body() -> int:
        match list(argv):
            case ["wait", folder, shell]:
                wait_for_puts(folder, shell)
            case ["complete", folder, shell]:
                try:
                    wait_for_puts(folder, shell)
                    _settle(complete, folder)
                except StorageError:
                    with contextlib.suppress(StorageError):
                        _settle(abort, folder)
                    raise
            case ["abort", folder, _]:
                _settle(abort, folder)
            case _:
                raise UsageError("wrong arguments", next_step=_USAGE)
        return 0

    return storage.run("punch-commit", body)


def _settle(act: Callable[[list[dict[str, Any]], Any], None], folder: str) -> None:
    from punchlib.aws.clients import client

    uploads = pending.uploads(folder)
    if act is complete:
        # A put that still runs is another script's, which settles it.
        uploads = [u for u in uploads if u["parts"] is not None or not _lives(u["put"])]
    first: StorageError | None = None
    for env, some in groupby(uploads, lambda upload: upload["env"]):
        for name in pending.WHERE:
            os.environ.pop(name, None)
        os.environ.update(env)
        try:
            act(list(some), client("s3", Config.from_env()))
        except StorageError as error:
            first = first or error
    if first:
        raise first
    # Or whoever looks here next, or another shell, would complete them again.
    pending.drop(folder)
