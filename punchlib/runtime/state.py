"""The state folder of a node run: failure markers and pending puts (docs/architecture.md).

A dead stage looks like a clean end of file to everything downstream. So a component that fails
leaves a marker here before it closes its FIFO, and whoever could commit a result looks here first.
"""

from __future__ import annotations

import os
import time

from punchlib.runtime import script_shell

FAILURES = "failures"
PENDING = "pending"


def state_dir() -> str:
    """The state folder of this node run.

    Whoever runs the script sets PUNCH_STATE_DIR. A script run by hand has none: there the folder
    is named after the shell that runs it.
    """
    given = os.environ.get("PUNCH_STATE_DIR")
    return given or f"/tmp/.punch-{os.getuid()}/{script_shell.state_name(script_shell.script_id())}"


def mark_failed(component: str, reason: str) -> None:
    """Leaves a failure marker. Never raises: the failure that it reports matters more."""
    try:
        _write(FAILURES, {"component": component, "reason": reason})
    except OSError:
        return


def failures(folder: str | None = None) -> list[dict[str, str]]:
    """The markers of this node run, oldest first: `component` and `reason` each."""
    return [
        {"component": str(m.get("component", "?")), "reason": str(m.get("reason", "?"))}
        for m in _read(FAILURES, folder)
    ]


def add_pending(upload: dict[str, object]) -> None:
    """Records a multipart upload whose parts are all there and which waits to be completed."""
    _write(PENDING, upload)


def pending(folder: str | None = None) -> list[dict[str, object]]:
    """The uploads that wait to be completed: bucket, key, upload_id, parts."""
    return _read(PENDING, folder)


def drop_pending(folder: str | None = None) -> None:
    """Forgets the uploads that wait: they were completed, or aborted."""
    path = f"{folder or state_dir()}/{PENDING}"
    for name in os.listdir(path):  # noqa: PTH208
        os.unlink(f"{path}/{name}")  # noqa: PTH108


def _write(kind: str, content: dict[str, object] | dict[str, str]) -> None:
    import json

    folder = os.path.join(state_dir(), kind)  # noqa: PTH118 (pathlib costs 5 ms at start-up)
    os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103
    name = f"{folder}/{time.time_ns()}-{os.getpid()}"
    # Written aside and renamed: a reader sees all of it or nothing.
    with open(name + ".new", "w") as f:
        json.dump(content, f)
    os.rename(name + ".new", name + ".json")  # noqa: PTH104


def _read(kind: str, folder: str | None) -> list[dict[str, object]]:
    import json

    path = f"{folder or state_dir()}/{kind}"
    try:
        names = sorted(n for n in os.listdir(path) if n.endswith(".json"))  # noqa: PTH208
    except FileNotFoundError:
        return []
    out = []
    for name in names:
        with open(f"{path}/{name}") as f:
            out.append(json.load(f))
    return out
