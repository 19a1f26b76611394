"""The edge of every runtime tool: from exceptions to a message, a marker and an exit status.

Status 141 (128 + SIGPIPE) says that a reader has gone: harmless, as in a shell pipeline. All
other failures leave their marker while the outputs are still open; they close when the process
ends. So downstream never sees the clean end of file before the marker is there.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed leaves it out
import errno
import sys

from punchlib.errors import PunchError
from punchlib.runtime import events, state
from punchlib.signals import Raising

# As typing.TYPE_CHECKING, which takes 6 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# `_signal`, not `signal`: its enums take a third of what is left of a tool's start.
READER_GONE: int = 128 + _signal.SIGPIPE
_NEXT = {
    errno.ENOSPC: "make room on the disk that it writes to",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EACCES: "give this user the right to open it",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}
_ENDING = {_signal.SIGTERM: "SIGTERM", _signal.SIGHUP: "SIGHUP"}


class Terminated(BaseException):
    """SIGTERM or SIGHUP came: the stage ends in mid-stream."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def run(component: str, body: Callable[[], int]) -> int:
    """Runs a tool and returns its exit status.

    Args:
        component: the name in messages and in the failure marker.
        body: the tool itself; returns its status, raises PunchError or OSError.
    """
    # What comes after it is too late for us: under the engine our caller's leaving is a SIGTERM.
    with Raising(tuple(_ENDING), Terminated) as ending:
        status = _run(component, body, ending)
        ending.settle()  # also where something else has failed because of it
        state.end(component, status)
        events.tell_stage_ended(component, status)
        return status


def _run(component: str, body: Callable[[], int], ending: Raising) -> int:
    try:
        state.fill_descriptors()
        state.begin(component)
        events.tell_stage_started(component)
        return body()
    except BrokenPipeError:
        return READER_GONE
    except PunchError as error:
        kind = state.REPORTED if error.reported_by_peer else state.OWN
        return fail(component, str(error), error.exit_code, kind, may_pass=error.may_pass)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        advice = _NEXT.get(error.errno or 0, "look at the file or FIFO that this stage names")
        return fail(component, f"{where}{error.strerror or error}\n  next: {advice}", 1)
    except Terminated as stop:
        ending.settle()
        return fail(component, f"ended by {_ENDING[stop.signum]}", 128 + stop.signum, state.STOPPED)
    except KeyboardInterrupt:
        return fail(component, "interrupted", 130, state.STOPPED)
    except BaseException as bug:
        state.mark_failed(component, repr(bug))
        raise


def fail(
    component: str, message: str, status: int, kind: str = state.OWN, *, may_pass: bool = False
) -> int:
    """Leaves the marker, says it on stderr, and returns `status`."""
    state.mark_failed(component, message, kind, may_pass=may_pass)
    if sys.stderr:  # closed from the start; print() would take the output instead
        print(f"{component}: {message}", file=sys.stderr, flush=True)
    return status
