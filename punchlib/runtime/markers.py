"""Failure markers: who failed, of what kind, why, and who said it first.

A marker is a file in `failures/` of a state folder. That it exists is the failure; its name,
`NANOSECONDS-PID`, puts it in order, and its lines are what the wait script writes as well:

    component pashlib k1 recv
    kind reported
    origin worker1
    reason wait: stage 2 of 3 (pid 77) was killed by SIGKILL: sort
    may_pass yes (only where the same may go well when the job runs again)
    reason (a line for each line)

A disk that is full must hide no failure. So there are four ways, and each needs less than the one
before: a file and a rename; one of the spare files that were written when the folder was made; an
empty file; the sticky bit of the folder. And a folder that is gone, cannot be read or cannot be
written is a failure to its readers, for it may be what kept the fourth from being said.
"""

# ruff: noqa: PTH101, PTH104, PTH108, PTH110, PTH116, PTH208
# (Paths are text here, as in `state`: some are /proc/self/fd/N.)

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from punchlib.errors import REPORTED as SAID_BY_PEER
from punchlib.errors import Cause
from punchlib.runtime import script_shell, state

_STICKY = 0o1000
_FIELDS = ("component", "kind", "origin")
#: The component of failures that nobody could write down.
NOBODY = "state folder"


@dataclass(frozen=True)
class Marker:
    """One failure.

    Attributes:
        component: who noticed it.
        reason: why, in its own words; the first line is the message. Of a reported failure it is
            what the first to fail said, unchanged however many machines it came across.
        kind: `own`, `stopped` (told to end: a consequence) or `reported` (by another machine).
        origin: the node that said it first, where that is known.
        may_pass: the same may go well when the job runs again.
    """

    component: str
    reason: str
    kind: str = state.OWN
    origin: str = ""
    may_pass: bool = False

    @property
    def told(self) -> str:
        """The reason as this node tells it."""
        if self.kind != state.REPORTED:
            return self.reason
        return (f"node {self.origin} reports: " if self.origin else SAID_BY_PEER) + self.reason

    @property
    def cause(self) -> Cause:
        """What travels to the next machine: the first cause, as it was first said."""
        reported = self.kind == state.REPORTED
        reason = self.reason if reported else f"{self.component}: {self.reason}"
        return Cause(reason, self.origin)

    @property
    def is_stream(self) -> bool:
        """Did a stream between machines break? What broke it may be on another one."""
        return self.component.split(" ", 1)[0] == "pashlib"

    @property
    def headline(self) -> str:
        """The first line of the reason."""
        return (self.told.strip().splitlines() or ["no reason given"])[0]

    @property
    def summary(self) -> str:
        """One line: who, and why."""
        return f"{self.component}: {self.headline}"

    def to_json(self) -> dict[str, str | bool]:
        return {
            "component": self.component,
            "kind": self.kind,
            "reason": self.reason,
            "origin": self.origin,
            "may_pass": self.may_pass,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Marker:
        """Reads one from a result; an older node does not say of what kind it is.

        Raises:
            KeyError: it is none.
        """
        return cls(
            component=str(data["component"]),
            reason=str(data["reason"]),
            kind=str(data.get("kind", state.OWN)),
            origin=str(data.get("origin", "")),
            may_pass=data.get("may_pass") is True,
        )

    def encode(self) -> bytes:
        """The file's content."""
        lines = [f"{name} {_one_line(getattr(self, name))}" for name in _FIELDS]
        lines += ["may_pass yes"] * self.may_pass
        lines += [f"reason {line}" for line in self.reason.split("\n")]
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")

    @classmethod
    def decode(cls, content: bytes) -> Marker:
        """Reads a file; where there was no room for its lines it is a failure all the same."""
        facts: dict[str, str] = {}
        reason: list[str] = []
        for line in content.decode("utf-8", "backslashreplace").split("\n"):
            name, _, value = line.partition(" ")
            if name == "reason":
                reason.append(value)
            elif name in (*_FIELDS, "may_pass"):
                facts[name] = value
        return cls(
            component=facts.get("component") or "a component",
            reason="\n".join(reason) or "there was no room to say why",
            kind=facts.get("kind") or state.OWN,
            origin=facts.get("origin", ""),
            may_pass=facts.get("may_pass") == "yes",
        )


def leave_everywhere(marker: Marker) -> None:
    """Leaves a marker in the folder of every shell that could be our script's."""
    try:
        scope = state.scope()
    except OSError as error:
        _lament(marker, f"the script that it belongs to cannot be found ({error})")
        return
    for folder in [*scope.folders, *scope.folders_beyond]:
        with contextlib.suppress(OSError):
            state.prepare_folder(folder)
        if not leave(folder, marker) and folder in scope.folders:
            _lament(marker, f"nothing can be written in {folder}")


def leave(folder: str, marker: Marker) -> bool:
    """Leaves a marker by the first way that works; False when none does."""
    name = f"{time.time_ns()}-{os.getpid()}"
    target = f"{folder}/{state.FAILURES}/{name}"
    content = marker.encode()
    for way in (_written, _spared, _empty):
        with contextlib.suppress(OSError):
            way(folder, target, content)
            return True
    try:
        os.chmod(folder, 0o700 | _STICKY)
    except OSError:
        return False
    return True


def failures(folders: Iterable[str], proc: str = "/proc") -> list[Marker]:
    """The markers of all these folders, oldest first, and whose processes died without one.

    Never raises, for not to know is to fail.

    Args:
        folders: the state folders.
        proc: the /proc in which their processes have their names.
    """
    found: list[tuple[str, Marker]] = []
    for folder in folders:
        found += _read(folder, proc)
    return [marker for _, marker in sorted(found, key=lambda pair: pair[0])]


def of_our_script() -> list[Marker]:
    """The failures of this process's own script, as `failures` has them."""
    try:
        scope = state.scope()
        return failures(scope.folders, scope.proc)
    except OSError as error:
        return [Marker(NOBODY, f"the script that this belongs to cannot be found: {error}")]


def _written(folder: str, target: str, content: bytes) -> None:
    new = f"{folder}/{state.SPARE}/{Path(target).name}.new"
    try:
        state.write(new, content)
        os.rename(new, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise


def _spared(folder: str, target: str, content: bytes) -> None:
    """Room that was kept: renamed first, or two would write into one."""
    if not state.take_spare(folder, target):
        raise FileNotFoundError
    fd = os.open(target, os.O_WRONLY)
    try:
        os.write(fd, content[: state.SPARE_SIZE])
    finally:
        os.close(fd)


def _empty(_folder: str, target: str, _content: bytes) -> None:
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _read(folder: str, proc: str) -> list[tuple[str, Marker]]:
    """Markers, each with what puts it in order: nanoseconds, or what comes after all of them."""
    path = f"{folder}/{state.FAILURES}"
    try:
        # First who died: one that lives now may leave a marker before we look for those.
        found = [("7", _killed(entry)) for entry in _dead(folder, proc)]
        found += [(name, _decode(f"{path}/{name}")) for name in os.listdir(path)]
        if os.stat(folder).st_mode & _STICKY:
            found.append(("8", Marker(NOBODY, f"a failure could not be written down in {folder}")))
        elif not os.access(folder, os.W_OK | os.X_OK):
            found.append(("9", Marker(NOBODY, f"no failure can be written down in {folder}")))
    except OSError as error:
        why = f"what failed cannot be read: {folder}: {error.strerror}"
        return [("9", Marker(NOBODY, why))]
    return found


def _dead(folder: str, proc: str) -> list[str]:
    """Who said that it runs, and is dead without having taken that back."""
    return [
        entry
        for entry in state.entries(folder)
        # Asked in this order: it may have taken it back and ended just now.
        if not state.runs(entry, proc) and os.path.exists(f"{folder}/{state.RUNNING}/{entry}")
    ]


def _killed(entry: str) -> Marker:
    process, _, component = entry.removeprefix(state.IN_ENGINE).partition(".")
    why = f"it was killed, or ended without a word (pid {process.partition('-')[0]})"
    return Marker(component, why, origin=state.node())


def _decode(path: str) -> Marker:
    """A marker that is being written as we look gets a moment to be whole."""
    for pause in (0.0, 0.01, 0.05):
        time.sleep(pause)
        if content := script_shell.read(path).strip(b"\n"):
            break
    return Marker.decode(content)


def _lament(marker: Marker, why: str) -> None:
    """The last word, where there is no other."""
    say: Callable[[str], object] = sys.stderr.write if sys.stderr else len
    with contextlib.suppress(OSError, ValueError):
        say(f"{marker.component}: this failure could not be recorded: {why}\n")


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))
