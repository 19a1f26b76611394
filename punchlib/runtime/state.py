"""The state folders of a script: failures, verdicts, and uploads that wait (docs/runtime.md).

A dead stage looks like a clean end of file to everything downstream. So a component that fails
leaves a marker here before it closes its FIFO, and whoever could commit a result looks here first.
One that is killed can leave nothing. So each says here that it runs (`begin`) and takes that back
(`end`): what has not been taken back by a process that is dead is a failure as well.

Whoever runs the script names its folder by PUNCH_STATE_DIR. A script run by hand has one for each
shell above a stage (`script_shell`), `/tmp/.punch-UID/PID-STARTTIME`: whichever of them sources the
wait script looks under its own name.

Only built-in modules are imported here: every tool's start comes this way.
"""

from __future__ import annotations

import errno
import posix
import sys

from punchlib.runtime import script_shell

FAILURES = "failures"
#: Who runs: empty files, `PID-STARTTIME.COMPONENT`, and behind `IN_ENGINE` forks of the engine,
#: which have their name in the /proc of the engine.
RUNNING = "running"
IN_ENGINE = "engine-"
PENDING = "pending"
VERDICTS = "verdicts"
SPARE = "spare"
#: Room that is kept for markers on a disk that has none left: files, and bytes in each.
SPARES, SPARE_SIZE = 4, 4096
#: The file that says that nothing of a state folder is missing.
COMPLETE = "complete"
#: Seconds after which the folder of a shell that has ended is nobody's, and how many are looked at.
STALE, AT_ONCE = 3600, 32

#: What kind of failure a marker tells of: the component's own, it was told to stop, or its peer's.
OWN, STOPPED, REPORTED = "own", "stopped", "reported"


class Scope:
    """Where a stage leaves its failures, and reads those of its script.

    Attributes:
        place: the state folder; by hand the folder that holds one for each shell.
        by_hand: nobody gave us a folder.
        shells: the script's shells, nearest first (`script_shell.Process.name`).
        sourcing: those of them that will source the wait script.
        awaited: those of these that will while we run.
        over: shells whose wait script comes no more: a stage of theirs is as one without any.
        beyond: by hand, the shells above: a failure is left with them too, and not read.
        orphans: where the shells are a guess, for the one that started us had ended before we
            looked: the processes that a shell must name as its stages to be ours.
        proc: the /proc in which they have these names.
    """

    def __init__(
        self,
        place: str,
        by_hand: bool,
        line: script_shell.Lineage,
        proc: str = "/proc",
    ) -> None:
        self.place = place
        self.by_hand = by_hand
        self.shells = line.shells
        self.sourcing = line.sourcing
        self.awaited = line.awaited
        self.over = line.over
        self.beyond = line.beyond if by_hand else []
        self.orphans = line.orphans
        self.proc = proc

    @property
    def folders(self) -> list[str]:
        """The state folders to read."""
        return [f"{self.place}/{s}" for s in self.shells] if self.by_hand else [self.place]

    @property
    def folders_beyond(self) -> list[str]:
        """The state folders that may be read by somebody else."""
        return [f"{self.place}/{s}" for s in self.beyond]

    def folder_of(self, shell: str) -> str:
        """The folder in which this shell's wait script leaves its verdicts."""
        return f"{self.place}/{shell}" if self.by_hand else self.place

    @property
    def home(self) -> str:
        """The one folder to name to programs that we start ourselves."""
        return self.folder_of((self.sourcing or self.shells)[-1])

    def encode(self) -> str:
        """All but the paths, which another process may know under other names."""
        names = (self.shells, self.sourcing, self.awaited, self.over, self.beyond, self.orphans)
        return "|".join(["hand" if self.by_hand else "given", *map(",".join, names)])

    @classmethod
    def decode(cls, text: str, place: str, proc: str) -> Scope:
        """The scope of a process whose folder and /proc are these."""
        kind, *lists = text.split("|")
        out = cls.__new__(cls)
        out.place, out.by_hand, out.proc = place, kind == "hand", proc
        out.shells, out.sourcing, out.awaited, out.over, out.beyond, out.orphans = (
            [name for name in names.split(",") if name] for names in lists
        )
        return out


_kept: Scope | None = None
#: Of this process: is it a fork of the engine, the files that say that it runs, has it failed?
_in_engine, _entries, _failed = False, list[str](), False


def adopt(scope: Scope) -> None:
    """Makes another process's scope ours: the engine works for its caller."""
    global _kept, _in_engine
    _kept, _in_engine = scope, True


def in_engine() -> bool:
    """Is this process a fork of the engine?"""
    return _in_engine


def scope() -> Scope:
    """The scope of this process. The first answer is kept, for parents may end.

    Raises:
        OSError: there is no /proc to find our script in.
    """
    global _kept
    if _kept is not None and (_in_engine or given() in ("", _kept.place)):
        return _kept
    line = script_shell.lineage()
    # `env -i` takes the variable from a stage; the shell that was started with it still has it.
    folder = given() or line.given
    _kept = Scope(folder or root(), not folder, line)
    return _kept


def given() -> str:
    """What PUNCH_STATE_DIR says; "" when it says nothing."""
    return _variable("PUNCH_STATE_DIR")


def folder_of_node() -> str:
    """The one state folder of a script that a node runs; "" of one that is run by hand."""
    if _kept is None and (folder := given()):
        return folder
    try:
        ours = scope()
    except OSError:
        return ""
    return "" if ours.by_hand else ours.place


def node() -> str:
    """What PUNCH_NODE says: our node's name in failures; "" when it says nothing."""
    return _variable("PUNCH_NODE")


def root() -> str:
    """Where the folders of scripts run by hand are."""
    return f"/tmp/.punch-{posix.getuid()}"


def begin(component: str) -> None:
    """Makes the state folders, with room for markers, and says there that we run.

    Every tool begins with this, and ends with `end`; to begin twice is to begin once.

    Raises:
        OSError: a folder cannot be made or is not ours alone, or nothing can be said there; then
            no failure could be recorded.
    """
    if _entries:
        return
    name = f"{process()}.{component}"
    if _kept is None and (folder := given()):
        _begin_in(folder, name)
        return
    ours = scope()
    for folder in ours.folders:
        _begin_in(folder, name)
    for folder in ours.folders_beyond:
        try:
            _begin_in(folder, name)
        except OSError:
            continue  # no script of ours


def process() -> str:
    """The name of this process in what it says in state folders."""
    prefix = IN_ENGINE if _in_engine else ""
    return f"{prefix}{script_shell.Process('self').name}"


def end(component: str, status: int) -> None:
    """Takes back that we run: we have ended well, or it is known that we have failed."""
    if status not in (0, 141) and not _failed:
        kind = STOPPED if status > 128 else OWN
        mark_failed(component, f"it ended with status {status}", kind)
    while _entries:
        try:
            posix.unlink(_entries.pop())
        except OSError:
            continue  # its script has ended, and the folder is gone


def dismiss(folder: str) -> None:
    """Takes back what those say who run now: their script has ended without them."""
    try:
        for name in entries(folder):
            if runs(name):
                posix.unlink(f"{folder}/{RUNNING}/{name}")
    except OSError:
        return  # then what is left is a failure


def entries(folder: str) -> list[str]:
    """The names of what says in this folder that somebody runs.

    Raises:
        OSError: it cannot be read.
    """
    return posix.listdir(f"{folder}/{RUNNING}")


def runs(entry: str, proc: str = "/proc") -> bool:
    """Does the process live that has said so?

    Args:
        entry: one of `entries`.
        proc: where those have their names that are no forks of the engine. Its forks are known
            to each other only; to everybody else they live.
    """
    if entry.startswith(IN_ENGINE):
        process = entry[len(IN_ENGINE) :].partition(".")[0]
        return not _in_engine or script_shell.find(process) is not None
    return script_shell.find(entry.partition(".")[0], proc) is not None


def prepare_folder(folder: str) -> None:
    """Makes one state folder, with all that a marker needs; what is there stays."""
    try:
        posix.stat(f"{folder}/{SPARE}/{COMPLETE}")
        return
    except (FileNotFoundError, PermissionError):
        pass
    above = folder.rpartition("/")[0]
    if above == root():
        _mkdir(above)
        _private(above)
    elif above:
        _mkdir(above)
    if _mkdir(folder) and above == root():
        _sweep(above, posix.stat(folder).st_mtime)
    for name in (VERDICTS, PENDING, RUNNING, FAILURES, SPARE):
        _mkdir(f"{folder}/{name}")
    for name in (*map(str, range(SPARES)), COMPLETE):
        try:
            write(f"{folder}/{SPARE}/{name}", b"\n" * SPARE_SIZE if name != COMPLETE else b"")
        except FileExistsError:
            continue  # another stage began at the same time


def mark_failed(
    component: str, reason: str, kind: str = OWN, origin: str = "", *, may_pass: bool = False
) -> None:
    """Leaves a failure marker in every state folder that could be our script's.

    Never raises: the failure that it reports matters more. Never drops it either: where nothing
    can be written a mode bit says so, and a folder that takes not even that counts as failed.

    Args:
        component: who noticed it.
        reason: why.
        kind: OWN, STOPPED or REPORTED.
        origin: of a reported one the node that said it first; all others are our own node's.
        may_pass: the same may go well when the job runs again.
    """
    global _failed
    from punchlib.runtime import markers

    _failed = True
    if kind != REPORTED:
        origin = node()
    markers.leave_everywhere(markers.Marker(component, reason, kind, origin, may_pass))


def fill_descriptors() -> None:
    """Opens 0, 1 and 2 where they are closed, so that no file of ours takes their place.

    What a closed one refused it still refuses: an input that is not there is no empty input.
    """
    for fd, flags in ((0, posix.O_WRONLY), (1, posix.O_RDONLY), (2, posix.O_WRONLY)):
        try:
            posix.fstat(fd)
        except OSError:
            posix.open("/dev/null", flags)  # takes the lowest that is free


def _variable(name: str) -> str:
    if "os" in sys.modules:
        return str(sys.modules["os"].environ.get(name, ""))
    return posix.environ.get(name.encode(), b"").decode("utf-8", "surrogateescape")


def _begin_in(folder: str, name: str) -> None:
    prepare_folder(folder)
    path = f"{folder}/{RUNNING}/{name}"
    try:
        write(path, b"")
    except FileExistsError:
        return
    except OSError:
        if not take_spare(folder, path):
            raise
    _entries.append(path)


def take_spare(folder: str, path: str) -> bool:
    """Gives room that was kept another name; False when none is left."""
    for number in range(SPARES):
        try:
            posix.rename(f"{folder}/{SPARE}/{number}", path)
        except FileNotFoundError:
            continue
        return True
    return False


def _mkdir(path: str) -> bool:
    """Makes a folder of our own; False when it is there."""
    # Mended afterwards, its mode would be wrong for a moment, in which another stage begins.
    users = posix.umask(0o077)
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        return False
    finally:
        posix.umask(users)
    return True


def _private(path: str) -> None:
    """Nobody else may have made it, or write into it."""
    found = posix.lstat(path)
    if found.st_mode & 0o170022 != 0o040000 or found.st_uid != posix.getuid():
        raise OSError(
            errno.EPERM,
            "it holds what our scripts know of their failures, and it is not a folder that only"
            " this user may write; remove it, or set PUNCH_STATE_DIR",
            path,
        )
    if found.st_mode & 0o777 != 0o700:
        posix.chmod(path, 0o700)


def write(path: str, content: bytes) -> None:
    """Makes a file that only we may read; FileExistsError where there is one."""
    fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
    try:
        posix.fchmod(fd, 0o600)  # whatever the umask
        while content:
            content = content[posix.write(fd, content) :]
    finally:
        posix.close(fd)


def _sweep(path: str, now: float) -> None:
    """Removes the folders of shells that have ended: nobody will ask for them."""
    for name in posix.listdir(path)[:AT_ONCE]:
        folder = f"{path}/{name}"
        try:
            if posix.stat(folder).st_mtime < now - STALE and not script_shell.find(name):
                _remove(folder)
        except OSError:
            continue  # somebody else was faster


def _remove(folder: str) -> None:
    for name in posix.listdir(folder):
        path = f"{folder}/{name}"
        try:
            posix.unlink(path)
        except IsADirectoryError:
            _remove(path)
    posix.rmdir(folder)
