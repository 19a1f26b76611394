"""A job: a folder of scripts `ID.sh`, at its top level or below, and perhaps a manifest.

The manifest is `job.toml` at the top of the folder. All of it is optional:

    timeout = 600                  # seconds; `--timeout` wins
    env = { PUNCH_ROUTES = "s3" }  # knobs for all nodes; `--env` and `--route` win

    [nodes.merger]                 # the script merger.sh
    place = "ec2"                  # or "lambda"; else the text of the script decides
    args = ["v1", "verbose"]       # bash SCRIPT FOLDER v1 verbose

    [result]                       # what this connection sends is the result: it goes to stdout
    connection = "KEY"
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from punchlib.errors import UsageError
from punchlib.jobs import result_stream
from punchlib.jobs.placement import Place, place
from punchlib.names import check_name, check_text, shown
from punchlib.node.protocol import check_knobs

MANIFEST = "job.toml"
#: Bytes of a script or manifest.
LARGEST = 16 << 20


@dataclass(frozen=True)
class Node:
    """One script of a job and where it runs."""

    id: str
    path: Path
    text: str
    place: Place
    args: tuple[str, ...] = ()

    @property
    def raw(self) -> bytes:
        """The script as it stood when it was read."""
        return self.text.encode(errors="surrogateescape")


@dataclass(frozen=True)
class Job:
    """All that a folder says.

    Attributes:
        nodes: sorted by id.
        timeout: seconds, from the manifest; None where it says nothing.
        env: knobs for its nodes.
        result: the connection whose receiver is the machine that runs the job; "" for none. Then
            one of its nodes is `here`.
    """

    folder: Path
    nodes: tuple[Node, ...]
    timeout: float | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    result: str = ""


def load(folder: Path) -> Job:
    """Reads a job.

    Raises:
        UsageError: no folder, no script, two scripts of one name, a wrong manifest.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", next_step="name a folder of ID.sh scripts")
    paths: dict[str, Path] = {}
    for path in _scripts(folder):
        check_name(path.stem, "the script id")
        if path.stem in paths:
            raise UsageError(
                f"two scripts have the id {path.stem!r}: {paths[path.stem]} and {path}",
                next_step="the ids of a job's scripts must differ; rename one",
            )
        paths[path.stem] = path
    if not paths:
        raise UsageError(f"{folder} holds no script", next_step="its scripts are named ID.sh")
    manifest = _read(folder / MANIFEST)
    settings = _table(manifest, "nodes", folder)
    for id_ in settings:
        if id_ not in paths:
            raise UsageError(
                f"{folder / MANIFEST} names the node {id_!r}, but there is no {id_}.sh"
            )
    nodes = [_node(paths[i], _table(settings, i, folder), folder) for i in sorted(paths)]
    env = check_knobs(manifest.get("env", {}), f"{folder / MANIFEST}: env")
    result = _result(_table(manifest, "result", folder), folder)
    if result:
        if result_stream.NODE in paths:
            raise UsageError(
                f"{paths[result_stream.NODE]} has the name of the node that receives the result",
                next_step="rename it",
            )
        # As a script it would be this line, which is what the checks read.
        text = f"pashlib '{result_stream.receiving(result, 'result')}'\n"
        nodes.append(Node(result_stream.NODE, folder / MANIFEST, text, "here"))
    return Job(folder, tuple(nodes), _timeout(manifest, folder), env, result)


def _result(settings: Mapping[str, Any], folder: Path) -> str:
    connection = settings.get("connection", "")
    if not isinstance(connection, str) or set(settings) - {"connection"} or "*" in connection:
        raise UsageError(
            f"{folder / MANIFEST}: {shown(str(dict(settings)))} is no result",
            next_step='[result] connection = "KEY", as in send*KEY*0*1*FIFO',
        )
    return check_text(connection, f"{folder / MANIFEST}: result.connection")


def _node(path: Path, settings: Mapping[str, Any], folder: Path) -> Node:
    # A byte that is no UTF-8 is no reason to refuse a script; bash takes it as well.
    try:
        text = _content(path, folder).decode(errors="surrogateescape")
    except OSError as error:
        raise UsageError(
            f"the script {path} cannot be read: {error.strerror}",
            next_step="everything that is named ID.sh in the folder must be a script",
        ) from error
    where: Place = place(text)
    args: list[str] = []
    for name, value in settings.items():
        match name, value:
            case "place", "ec2" | "lambda":
                where = value
            case "args", list() if all(isinstance(v, str) for v in value):
                args = [check_text(v, f"an argument of {path.stem}") for v in value]
            case _:
                raise UsageError(
                    f"{folder / MANIFEST}: nodes.{path.stem}.{name} = {value!r} is not understood",
                    next_step='place = "ec2" or "lambda"; args = ["text", …]',
                )
    return Node(path.stem, path, text, where, tuple(args))


def _timeout(manifest: Mapping[str, Any], folder: Path) -> float | None:
    value = manifest.get("timeout")
    if value is None:
        return None
    # A comparison with nan is false.
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e9:
        raise UsageError(f"{folder / MANIFEST}: timeout = {value!r} is not a number of seconds")
    return float(value)


def _table(parent: Mapping[str, Any], name: str, folder: Path) -> Mapping[str, Any]:
    value = parent.get(name, {})
    if not isinstance(value, dict):
        raise UsageError(f"{folder / MANIFEST}: {name} is not a table")
    return value


def _scripts(folder: Path) -> list[Path]:
    found: list[Path] = []

    def refuse(error: OSError) -> None:
        raise UsageError(f"cannot read {shown(str(error.filename))}: {error.strerror}") from error

    for where, folders, files in os.walk(folder, onerror=refuse):
        found += [Path(where, name) for name in (*folders, *files) if name.endswith(".sh")]
    return sorted(found)


def _content(path: Path, folder: Path) -> bytes:
    """What is in a file of the job, which nothing else may pose as: no FIFO, no link to outside.

    Raises:
        UsageError: it is no regular file within the folder, is too large, or cannot be read.
    """
    try:
        inside = path.resolve(strict=True).is_relative_to(folder.resolve())
        # Not blocking: opening a FIFO would wait for its writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            content = file.read(LARGEST + 1) if regular and inside else b""
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        why = getattr(error, "strerror", None) or "its links go in a circle"
        raise UsageError(f"cannot read {shown(str(path))}: {why}") from None
    if not inside or not regular:
        raise UsageError(
            f"{shown(str(path))} is not a regular file of the job",
            next_step="a script is a file, or a link to one within the job's folder",
        )
    if len(content) > LARGEST:
        raise UsageError(f"{shown(str(path))} has more than {LARGEST} bytes")
    return content


def _read(path: Path) -> dict[str, Any]:
    if not path.is_symlink() and not path.exists():
        return {}
    text = _content(path, path.parent)
    try:
        manifest = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:
        # ValueError: no TOML, no UTF-8, or a number of thousands of digits.
        raise UsageError(f"{path} is not TOML that we can read: {error}") from None
    for name in manifest:
        if name not in ("timeout", "nodes", "env", "result"):
            raise UsageError(
                f"{path} has an unknown entry {name!r}", next_step="timeout, nodes, env, result"
            )
    return manifest
