"""Did the kernel kill for want of memory? The node's control group counts it, where it is told.

Lambda shows no control group to its workers: there the platform says it (jobs/launch.py).
"""

from __future__ import annotations

from pathlib import Path

_V2 = Path("/sys/fs/cgroup")
_V1 = _V2 / "memory"
#: What the first version calls no limit.
_NO_LIMIT = 1 << 62


def oom_kills() -> int:
    """How many processes of this control group the kernel has killed; 0 where it is not told."""
    for file in (_V2 / "memory.events", _V1 / "memory.oom_control"):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        counts = dict(line.split(maxsplit=1) for line in lines if " " in line)
        return int(counts.get("oom_kill", 0))
    return 0


def limit() -> int:
    """The control group's limit in bytes; 0 where there is none, or it is not told."""
    for file in (_V2 / "memory.max", _V1 / "memory.limit_in_bytes"):
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdecimal() and int(text) < _NO_LIMIT else 0
    return 0


def killed_note(before: int) -> str:
    """What to say where the kernel has killed since; "" where it has not.

    Args:
        before: what `oom_kills` said.
    """
    if oom_kills() <= before:
        return ""
    had = limit() >> 20
    text = "out of memory: the kernel killed a process of the script"
    if not had:
        return text
    return f"{text}; the node has {had} MB, give it more (Lambda: --parameter MemorySize={2 * had})"
