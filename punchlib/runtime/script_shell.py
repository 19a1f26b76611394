"""Which shells run the script that we are a stage of. Built-in modules only, as in `state`.

A script run by hand gives its stages nothing to know it by; what all of them have is their parents.
So we walk up and take every shell that reads a script (`( … )`, `{ …; }`, functions, `bash -c` and
`<( … )` are shells of their own below it), whatever stands in between (`timeout`, `nohup`, `env`).
A shell at a terminal is none: what is typed there has nothing in common.
"""

from __future__ import annotations

import posix

from punchlib.runtime import script_text

# As typing.TYPE_CHECKING, which takes 6 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator

WAIT_SCRIPT = b"wait_for_output_and_sigpipe_rest.sh"
#: The variable in which the wait script says whose it was: `PID-STARTTIME TIMES`.
WAITED = b"PUNCH_WAITED"
_SHELLS = (b"bash", b"sh", b"dash", b"ash", b"ksh", b"mksh", b"zsh", b"busybox", b"rbash")
#: Programs that run one command for somebody else. Any other that starts tools has scripts of its
#: own, and what is above it is another script.
_WRAPPERS = (
    *(b"timeout", b"env", b"nice", b"nohup", b"setsid", b"stdbuf", b"xargs", b"time", b"flock"),
    *(
        b"strace",
        b"ionice",
        b"chrt",
        b"taskset",
        b"sudo",
        b"su",
        b"script",
        b"parallel",
        b"unshare",
    ),
)
#: Descriptors by which shells keep the script that they read: bash, dash, or its standard input.
_SCRIPT_FDS = (255, 10, 0)
_EXITING = 4  # PF_EXITING: its files are closed before it is a zombie
_REGULAR = 0o100000


class Process:
    """What /proc says of one process (proc(5), `stat`).

    Attributes:
        name: `PID-STARTTIME`, since pids come again.
        dead: it is a zombie, or on its way to be one.
    """

    def __init__(self, pid: int | str, proc: str = "/proc") -> None:
        """Raises OSError when there is no such process."""
        # The second field, a name in brackets, may hold anything.
        head, _, rest = read(f"{proc}/{pid}/stat").rpartition(b")")
        fields = rest.split()
        number, _, self.comm = head.partition(b" (")
        self.pid = int(number)
        self.parent, self.group, self.session = int(fields[1]), int(fields[2]), int(fields[3])
        self.dead = fields[0] in b"ZXx" or bool(int(fields[6]) & _EXITING)
        self._sleeps = fields[0] not in b"RD"
        self.name = f"{self.pid}-{fields[19].decode()}"
        self._proc = proc
        self._folder = f"{proc}/{self.pid}"
        self._words: list[bytes] | None = None

    @property
    def program(self) -> bytes:
        """The name of its program; of a script that was started directly, the shell's."""
        name = _plain(self.comm)
        if name in _SHELLS:
            return name
        try:
            target = posix.readlink(f"{self._folder}/exe").encode("utf-8", "surrogateescape")
            # Of a shell that has been replaced since, by an upgrade, the kernel adds that.
            return _plain(target.rpartition(b"/")[2].removesuffix(b" (deleted)"))
        except OSError:
            return self.comm

    @property
    def words(self) -> list[bytes]:
        """Its command line."""
        if self._words is None:
            try:
                self._words = read(f"{self._folder}/cmdline").rstrip(b"\0").split(b"\0")
            except OSError:
                self._words = []
        return self._words

    @property
    def reads_file(self) -> bool:
        """Is it a shell with a script in a file, and not one with `-c`?"""
        return not any(w[:1] == b"-" and w[:2] != b"--" and b"c" in w for w in self._options())

    def reads_script(self) -> bool:
        """Is it a shell, and not one at a terminal?"""
        if self.program not in _SHELLS or self._at_terminal(255):
            return False
        return not self._at_terminal(0) or len(self._options()) + 1 < len(self.words)

    def mentions(self, text: bytes) -> bool:
        """Does the script that it reads hold this text, or one that it sources?"""
        return any(
            text in source
            or any(text in _content(self._path(p)) for p in script_text.sourced(source))
            for source in self.texts()
        )

    def texts(self) -> Iterator[bytes]:
        """What it reads, as far as that can be read."""
        rest = self.words[len(self._options()) + 1 :]
        if not self.reads_file:
            yield b"\0".join(rest[:1])
            return
        sources = [f"{self._folder}/fd/{fd}" for fd in _SCRIPT_FDS]
        if rest:
            sources.append(self._path(rest[0]))
        for source in sources:
            yield _content(source)

    def is_ending(self, output: bytes = b"", ours: Container[str] = ()) -> bool:
        """Is it on its way to an end, or has something below it died, of which it will take notice?

        What has closed its stdout is: GNU's tools do that before they exit, and not always well
        (gnulib's close_stdout). Its reader sees the end of the stream before there is a status. So
        does the reader of a file that it was told to write (`tee FILE`, `sort -o FILE`, `of=FILE`).

        Args:
            output: the last part of the path of such a file, which nobody has open any more.
            ours: the names of processes that leave word before they close anything.
        """
        if self._has_let_go_of_stdout():
            return True
        if output and self.name not in ours and self._was_told(output):
            return True
        try:
            pids = read(f"{self._folder}/task/{self.pid}/children").decode().split()
        except OSError:
            return True  # just now
        if not pids:
            return not self._waits_for_something() and self.program in (*_SHELLS, *_WRAPPERS)
        children = [_look(pid, self._proc) for pid in pids]
        return any(
            child is None or child.dead or child.is_ending(output, ours) for child in children
        )

    def ignores(self, *signals: int) -> bool:
        """Does it ignore all these signals? Where nobody tells, it may."""
        try:
            lines = read(f"{self._folder}/status").split(b"\n")
        except OSError:
            return True
        mask = next((int(x.split()[1], 16) for x in lines if x.startswith(b"SigIgn:")), -1)
        return all(mask >> number - 1 & 1 for number in signals)

    def variable(self, name: bytes) -> bytes:
        """What this variable was when it was started, or became another program; b"" if nothing."""
        try:
            variables = read(f"{self._folder}/environ").split(b"\0")
        except OSError:
            return b""
        mark = name + b"="
        return next((v for v in variables if v.startswith(mark)), mark)[len(mark) :]

    def _path(self, name: bytes) -> str:
        """What it calls so, as we can open it."""
        above = "root" if name.startswith(b"/") else "cwd"
        return f"{self._folder}/{above}/{name.decode('utf-8', 'surrogateescape')}"

    def _waits_for_something(self) -> bool:
        """Is it asleep, other than on its way out of wait()?

        That takes the child away first and calls itself running only then; in between it may have
        lost the processor. Then `wchan`, where it sleeps, is "0" (proc(5)).
        """
        try:
            return self._sleeps and read(f"{self._folder}/wchan") not in (b"0", b"do_wait")
        except OSError:
            return self._sleeps

    def _was_told(self, name: bytes) -> bool:
        """Is an argument of it a path with this last part? Shells have those of other programs."""
        if self.program in (*_SHELLS, *_WRAPPERS):
            return False
        ends = (b"/" + name, b"=" + name)
        return any(word == name or word.endswith(ends) for word in self.words[1:])

    def _has_let_go_of_stdout(self) -> bool:
        try:
            posix.readlink(f"{self._folder}/fd/1")
        except FileNotFoundError:
            return True
        except OSError:
            return False  # another user's
        return False

    def _options(self) -> list[bytes]:
        """The words between its name and its first operand."""
        words = self.words[1:]
        end = next((i for i, w in enumerate(words) if w[:1] not in (b"-", b"+")), len(words))
        # `-o NAME` takes a word more.
        if 0 < end < len(words) and words[end - 1] in (b"-o", b"+o", b"-O", b"+O"):
            end += 1
        return words[:end]

    def _at_terminal(self, fd: int) -> bool:
        try:
            return posix.readlink(f"{self._folder}/fd/{fd}").startswith(("/dev/pts/", "/dev/tty"))
        except OSError:
            return False


class Lineage:
    """The shells above a stage, nearest first, by name.

    Attributes:
        shells: those of its own script.
        beyond: those above that have a wait script too: theirs are other scripts, which started
            ours. One without would only pass our failure on to what it does next.
        sourcing: those of `shells` whose text says that they will source the wait script.
        awaited: those of `sourcing` that get there while we run: we are in their background.
        over: those of `shells` whose last wait script is certainly behind them.
        given: the PUNCH_STATE_DIR with which one of `shells` was started; "" where none was.
        orphans: where the parents had ended before us, so that `shells` is a guess: our process
            and those above it that are left.
    """

    def __init__(
        self, chain: list[Process], shells: list[Process], own: int, orphans: list[Process]
    ) -> None:
        """
        Args:
            chain: our process and those above it.
            shells: those of them that read scripts, and what an orphan has instead.
            own: how many of `shells` no other program separates from us.
            orphans: those of `chain` that may belong to a script whose shell is not in it.
        """
        first, last = _sourcing(shells)
        # Process substitutions are children of the program that was given them, so a script with
        # a wait script reaches as far as its text.
        top = last or own
        sourcing = shells[first:last]
        self.shells = [s.name for s in shells[:top]]
        self.beyond = [s.name for s in shells[top:] if s.mentions(WAIT_SCRIPT)]
        self.sourcing = [s.name for s in sourcing]
        self.awaited = [s.name for s in sourcing if _in_background(s, chain)]
        self.over = _over(shells[:top])
        self.orphans = [p.name for p in orphans]
        given = next(filter(None, (s.variable(b"PUNCH_STATE_DIR") for s in shells[:top])), b"")
        self.given = given.decode("utf-8", "surrogateescape")


def lineage(proc: str = "/proc") -> Lineage:
    """The shells above this process; itself where there are none.

    Raises:
        OSError: /proc says nothing about ourselves.
    """
    us = Process("self", proc)
    chain, shells, own = [us], list[Process](), None
    top: Process | None = None
    while chain[-1].parent:
        try:
            process = Process(chain[-1].parent, proc)
        except OSError:
            break
        if process.session != us.session:
            top = top or chain[-1]
        chain.append(process)
        if process.reads_script():
            shells.append(process)
        elif own is None and process.program not in _WRAPPERS:
            own = len(shells)
    if top is None and _was_adopted(chain):
        top = chain[-2]
    orphans = chain[: chain.index(top) + 1] if top is not None and top.pid != top.group else []
    if top is not None and orphans:
        lost = _lost_parents(top, us, proc)
        names = {shell.name for shell in lost}
        own = len(shells) if own is None else own
        shells[own:] = [*lost, *(s for s in shells[own:] if s.name not in names)]
        own += len(lost)
    own = len(shells) if own is None else own
    return Lineage(chain, shells if own else [us, *shells], own or 1, orphans)


def _sourcing(shells: list[Process]) -> tuple[int, int]:
    """From which to which of these shells the wait script will be sourced.

    The nearest script's own text counts: subshells have it too, `bash -c` may have another. They
    need not know where it is: only the first shell keeps it open, and `cd` changes what a name is.
    """
    for first, shell in enumerate(shells):
        last = first + 1
        while last < len(shells) and shells[last].words == shell.words:
            last += 1
        if any(same.mentions(WAIT_SCRIPT) for same in shells[first:last]):
            return first, last
        if shell.program in _SHELLS and shell.reads_file:
            break
    return 0, 0


def _over(shells: list[Process]) -> list[str]:
    """Which of these shells certainly have the last wait script of their text behind them.

    The wait script leaves its shell's name, and how often it was sourced there, in the environment.
    In doubt there is one more to come: to complete a put too early could be wrong bytes.
    """
    name, times = _waited(posix.environ.get(WAITED, b""))
    shell = next((s for s in shells if s.name == name), None)
    if shell is None:
        return []
    before, already = _waited(shell.variable(WAITED))  # it may have become this script by `exec`
    if before == name:
        times -= already
    text = max(shell.texts(), key=len, default=b"") if shell.reads_file else b""
    if not times or script_text.times_sourced(text, WAIT_SCRIPT) != times:
        return []
    below = shells[: shells.index(shell)]
    return [name, *(s.name for s in below if s.words == shell.words)]


def _waited(text: bytes) -> tuple[str, int]:
    name, _, times = text.decode("ascii", "replace").partition(" ")
    return name, int(times) if times.isdecimal() else 0


def _in_background(shell: Process, chain: list[Process]) -> bool:
    """Does this shell go on while we run?

    What a shell without job control starts in the background ignores SIGINT and SIGQUIT (POSIX,
    2.11); where it waits for us in the foreground, we must not wait for it.
    """
    place = next((i for i, p in enumerate(chain) if p.name == shell.name), 0)
    return not place or chain[place - 1].ignores(2, 3)


def _was_adopted(chain: list[Process]) -> bool:
    """Is pid 1 the last of this chain as the parent of all orphans, and not as who started us?

    In a container it is often of the same session, which then tells nothing. What a shell has
    started in the background can be told, and whether pid 1 is a shell that runs such tools.
    """
    us, init = chain[0], chain[-1]
    if init.pid != 1 or len(chain) < 2 or not chain[-2].ignores(2, 3):
        return False
    if any(between.program not in _WRAPPERS for between in chain[1:-1]):
        return False  # that started us, whoever started it
    tool = us.words[len(us._options()) + 1 :][:1]
    name = b"".join(tool).rpartition(b"/")[2]
    return not (name and init.program in _SHELLS and init.mentions(name))


def _lost_parents(top: Process, us: Process, proc: str) -> list[Process]:
    """The shells that may have started an orphan, whose parents ended before it.

    Without job control all of a script is one process group, so a shell of that group did; not one
    that the orphan has started itself. A subshell reads what its parent reads.

    Args:
        top: the topmost of the orphans above us; it leads no group, or it was nobody's stage.
        us: this process.
        proc: where /proc is.
    """
    everybody: dict[int, Process] = {}
    for entry in posix.listdir(proc):
        if entry.isdigit() and (process := _look(entry, proc)):
            everybody[process.pid] = process

    def is_below(process: Process) -> bool:
        seen = process
        while seen.pid != top.pid and seen.parent in everybody:
            seen = everybody[seen.parent]
        return seen.pid == top.pid

    found = [
        p
        for p in everybody.values()
        if p.group == top.group and p.session == us.session and p.reads_script() and not is_below(p)
    ]
    return [p for p in found if p.words == top.words] or found


def _plain(name: bytes) -> bytes:
    """A program's name without its version: `bash` of `bash-5.2`."""
    return name.rstrip(b"-.0123456789") or name


def _look(pid: str, proc: str) -> Process | None:
    try:
        return Process(pid, proc)
    except OSError:
        return None


def find(name: str, proc: str = "/proc") -> Process | None:
    """The process of that name, if it still lives."""
    try:
        process = Process(name.partition("-")[0], proc)
    except OSError:
        return None
    return process if process.name == name and not process.dead else None


def read(path: str) -> bytes:
    """All of a file."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        parts = []
        while part := posix.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        posix.close(fd)


def _content(path: str) -> bytes:
    try:
        # Never a FIFO: to open one may wait for ever, or take what is another's.
        return read(path) if posix.stat(path).st_mode & 0o170000 == _REGULAR else b""
    except OSError:
        return b""
