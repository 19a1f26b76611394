"""Telling what happens: one line of JSON for each event, to the node that runs the script.

A node that wants to know has a FIFO in the script's state folder and reads it while the script
runs (punchlib.node.event_log). docs/events.md lists the events and their attributes. A pipe takes
nothing from a disk, wakes nobody who has nothing to do, and keeps lines of up to PIPE_BUF bytes
whole (POSIX write()). Where nobody reads, or the pipe is full, an event is lost: no stage ever
waits, or fails, for one.

Only built-in modules are imported here, as in `state`: every tool's start comes this way.
"""

from __future__ import annotations

import posix
import time
from _json import encode_basestring_ascii as _quoted

from punchlib.runtime import state

# As typing.TYPE_CHECKING, which takes 6 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Value = str | int | float | bool

#: The FIFO in the state folder.
FIFO = "events"
#: Bytes of a line; longer texts are cut.
LONGEST = 4096
#: Characters of one attribute.
_MOST_TEXT = 500


def tell(event: str, attributes: Mapping[str, Value] | None = None) -> None:
    """Tells of an event. Never raises and never waits.

    Args:
        event: its name, as docs/events.md has it.
        attributes: what more there is to say.
    """
    folder = state.folder_of_node()
    if not folder:
        return
    now = time.time()
    try:
        fd = posix.open(f"{folder}/{FIFO}", posix.O_WRONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    except OSError:
        return  # nobody wants to know
    try:
        posix.write(fd, encode(event, now, {"process.pid": posix.getpid(), **(attributes or {})}))
    except OSError:
        return  # it is full: who reads it has more than it can take
    finally:
        posix.close(fd)


def tell_stage_started(tool: str) -> None:
    """Tells that a tool of ours runs."""
    tell("stage.started", {"process.executable.name": tool})


def tell_stage_ended(tool: str, status: int) -> None:
    """Tells how a tool of ours has ended, and what its process took.

    A fork of the engine is no child of its script, so what it took shows nowhere else.
    """
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    facts: dict[str, Value] = {
        "process.executable.name": tool,
        "process.exit.code": status,
        "process.cpu.time": used.ru_utime + used.ru_stime,
        "process.memory.peak": used.ru_maxrss << 10,
        "punch.engine": state.in_engine(),
    }
    tell("stage.ended", facts)


def encode(event: str, at: float, attributes: Mapping[str, Value]) -> bytes:
    """One event as a line.

    Args:
        event: its name.
        at: seconds since the epoch by this machine's clock.
        attributes: by name; texts are cut, and from the first that would make the line too long
            on they are left out.
    """
    text = f'{{"v": 1, "time": {at:.6f}, "event": {_quoted(event)}, "attributes": {{'
    separator = ""
    for name, value in attributes.items():
        pair = f"{separator}{_quoted(name)}: {_encode(value)}"
        if len(text) + len(pair) + 3 > LONGEST:
            break
        text += pair
        separator = ", "
    return f"{text}}}}}\n".encode()


def _encode(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if abs(value) < 1e15 else "null"
    if isinstance(value, int):
        return str(value)
    return str(_quoted(value[:_MOST_TEXT]))
