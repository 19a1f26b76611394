"""Multipart uploads that wait for their second step, recorded in state folders.

An upload is a mapping: bucket, key, upload_id, and parts, which are None while it has only begun;
`put` is the process that has begun it, as `state.process` names it, `piece` says that others have
parts of it too, and `env` leads back to its store, and holds no secret. One that several shells may
settle, since nobody can tell yet which of them will, is recorded with each, and names their folders
in `shared`.

A put in `>( … )` is no stage that is waited for. So as long as it runs an empty file beside the
records, `SHELL.PUT.put`, tells that shell's wait script that one is to come; `SHELL.PUT.put-ended`
that one has come, for a script whose text names more of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from punchlib.runtime import state

_PUT, _ENDED = ".put", "-ended"
#: Variables that say which store is meant: a put may have others than its script.
WHERE = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
)


def begin(shells: Mapping[str, str]) -> None:
    """Says that we shall put something.

    Args:
        shells: those of which one will settle it, and the state folder of each.

    Raises:
        OSError: it cannot be said, so nobody would wait for us.
    """
    for path in _said(shells):
        state.write(str(path), b"")


def end(shells: Mapping[str, str]) -> None:
    """Takes that back, after all has gone well: a failure is known when this process has ended."""
    for path in _said(shells):
        # That script may have ended, and its folder be gone.
        with contextlib.suppress(FileNotFoundError):
            path.rename(f"{path}{_ENDED}")


def _said(shells: Mapping[str, str]) -> list[Path]:
    name = f"{state.process()}{_PUT}"
    return [Path(folder) / state.PENDING / f"{s}.{name}" for s, folder in shells.items()]


def puts(folder: str, shell: str) -> list[str]:
    """The processes that have said that they put something which this shell may settle."""
    found = [path.name for path in (Path(folder) / state.PENDING).iterdir()]
    mine = [name for name in found if name.startswith(f"{shell}.") and name.endswith(_PUT)]
    return [name.removeprefix(f"{shell}.").removesuffix(_PUT) for name in mine]


def add(upload: dict[str, Any], folders: Sequence[str]) -> None:
    """Records one that waits to be completed, or has begun.

    Raises:
        OSError: it cannot be recorded, so nobody would complete it, or abort it.
    """
    name = f"{time.time_ns()}-{os.getpid()}"
    if len(folders) > 1:
        upload = upload | {"shared": [Path(folder).name for folder in folders]}
    for folder in folders:
        # Written aside and renamed: a reader sees all of it or nothing.
        new = Path(folder) / state.SPARE / name
        state.write(str(new), json.dumps(upload).encode())
        new.rename(Path(folder) / state.PENDING / f"{name}.json")


def uploads(folder: str) -> list[dict[str, Any]]:
    """The uploads as they were last recorded, oldest first."""
    found = [json.loads(path.read_bytes()) for path in _records(folder)]
    found.sort(key=lambda upload: upload["parts"] is not None)  # a clock may have been put back
    return list({upload["upload_id"]: upload for upload in found}.values())


def drop(folder: str) -> None:
    """Forgets those of a folder, wherever they are: they were completed, or aborted."""
    for upload in uploads(folder):
        for shell in upload.get("shared", ()):
            _forget(Path(folder).with_name(shell), upload["upload_id"])
    for path in _records(folder):
        path.unlink()


def _records(folder: str | Path) -> list[Path]:
    return sorted((Path(folder) / state.PENDING).glob("*.json"))


def _forget(folder: Path, upload_id: str) -> None:
    try:
        for path in _records(folder):
            if json.loads(path.read_bytes())["upload_id"] == upload_id:
                path.unlink()
    except OSError:
        return  # that script has ended, and its folder is gone
