"""What a task was doing when somebody stopped it.

A connection that waits says nothing: it may wait for minutes, and rightly. Whoever loses patience
stops it, and then it must say what it waited for. So the places that wait say it by `doing`, and
`stopped` tells it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def doing(what: Callable[[], str]) -> Iterator[None]:
    """Says what was being done inside, if the task is cancelled there.

    Args:
        what: called only then; completes "stopped, while …".
    """
    try:
        yield
    except asyncio.CancelledError as stop:
        stop.add_note(what())
        raise


def stopped(stop: asyncio.CancelledError) -> str:
    """The reason for which a cancelled task failed: "stopped, while …"."""
    notes = getattr(stop, "__notes__", [])
    return "stopped" + (", while " + "; ".join(notes) if notes else "")
