"""Decides what runs on the workers, how their outputs are joined, and what comes after it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from punchlib.errors import UsageError
from punchlib.sh.commands import form_of
from punchlib.sh.forms import REDUCE, Form, Gather
from punchlib.sh.object_patterns import S3
from punchlib.sh.packed import unpacker
from punchlib.sh.reading import Pipeline, Stage

#: Workers of one job; jobs of this width have been run (docs/scripts.md).
WIDEST = 128
#: Commands whose operands are files, beside stdin; the last node gets them as streams.
_SECOND_INPUTS = frozenset(("comm", "diff", "join", "paste"))
#: Options with which `diff` names none of its files. Without -a it does where one of them
#: is no text.
_NAMELESS_DIFF = re.compile(r"-(?=.*a)[abBdEtTwZ]+")
#: Commands that do not read stdin.
_NO_STDIN = frozenset(("seq", "printf", "echo", "yes", "true"))


#: What every system with a shell and GNU's or POSIX's tools has, our images among them (asked by
#: tests/e2e/test_sh.py); and ours.
ON_EVERY_WORKER = frozenset(
    (
        *("awk", "cat", "comm", "cut", "egrep", "expand", "false", "fgrep", "fmt", "fold", "grep"),
        *("gzip", "head", "join", "nl", "paste", "printf", "rev", "sed", "seq", "sort", "tac"),
        *("tail", "tee", "tr", "true", "uniq", "wc", "xargs", REDUCE),
    )
)


@dataclass(frozen=True)
class Command:
    """One command as it runs on a node.

    Attributes:
        primed, text_only: as in `forms.Split`; on workers only.
        inputs: indices of words that are files, which the node fetches.
    """

    words: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    quiet: bool = False
    primed: bool = False
    text_only: bool = False
    inputs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Turn:
    """One turn of a loop: a pipeline that runs as a whole on one worker.

    Attributes:
        inputs: names of what it reads, one after the other.
    """

    inputs: tuple[str, ...]
    commands: tuple[Command, ...]


@dataclass(frozen=True)
class Told:
    """One line of `--explain`."""

    text: str
    how: str
    why: str


@dataclass(frozen=True)
class Plan:
    """How a pipeline runs.

    Attributes:
        inputs: names of the files and objects (s3://…) whose concatenation is the input; "-" is
            stdin. None where the first command reads nothing.
        unpack: what unpacks each input first; then each is one piece. Empty where pieces are
            ranges of lines.
        turns: of the loop that gives the input; then each is one piece.
        mapped: what each worker runs on its piece; none: there are no workers.
        gather: how the workers' outputs become one.
        after: what follows each gathering: it may run on a part as well as on the whole.
        tail: what the last node runs on that.
        target: as in `Pipeline`.
    """

    inputs: tuple[str, ...] | None
    mapped: tuple[Command, ...]
    gather: Gather
    after: tuple[Command, ...]
    tail: tuple[Command, ...]
    told: tuple[Told, ...]
    target: str | None
    unpack: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()

    @property
    def has_workers(self) -> bool:
        return bool(self.mapped or self.unpack or self.turns)

    @property
    def cuts_lines(self) -> bool:
        """Pieces are ranges of lines, so it matters where inputs end."""
        return bool(self.mapped and not self.unpack and not self.turns)

    @property
    def puts_pieces(self) -> bool:
        """The result is an object, and what the workers write, one after the other, is in it."""
        joins = self.gather.words or self.after or self.tail
        target = self.target or ""
        bucket = target.removeprefix(S3).partition("/")[0]
        # A directory bucket takes consecutive part numbers only, and nobody knows how many there
        # will be before theirs.
        takes = target.startswith(S3) and not bucket.endswith("--x-s3")
        return self.has_workers and not joins and takes

    @property
    def programs(self) -> frozenset[str]:
        """Names of all commands that it runs."""
        turns = [c for turn in self.turns for c in turn.commands]
        commands = [c.words for c in (*self.mapped, *self.after, *self.tail, *turns)]
        return frozenset(words[0] for words in (*commands, self.gather.words, self.unpack) if words)


@dataclass(frozen=True)
class _Head:
    """What gives the input.

    Attributes:
        unpack: as in `Plan`.
        turns: as in `Plan`.
        told: of what it takes.
        stages: how many of the pipeline's stages it takes.
    """

    inputs: tuple[str, ...] | None
    unpack: tuple[str, ...] = ()
    told: tuple[Told, ...] = ()
    turns: tuple[Turn, ...] = ()
    stages: int = 0


#: A user's own forms, by their words (`extensions.forms`).
More = Mapping[tuple[str, ...], Form]


def make(pipeline: Pipeline, whole: str = "", more: More | None = None) -> Plan:
    """Plans a pipeline.

    Args:
        pipeline: what is to run.
        whole: why its input cannot be cut; "" where it can.
        more: the user's own forms.

    Raises:
        UsageError: a command names a file that would not be where it runs.
    """
    stages = pipeline.stages
    forms = [_form(stage, more) for stage in stages]
    first = 0 if pipeline.each else 1
    for stage, form in zip(stages[first:], forms[first:], strict=True):
        if form.files:
            raise UsageError(
                f"line {stage.line}: {stage.text} reads {form.files[0]} and not the pipe",
                next_step="files are read by the first command of a pipeline",
            )
    head = _loop(pipeline.each, more) if pipeline.each else _head(pipeline, forms)
    if not pipeline.each and head.inputs is not None:
        _refuse_wide_counts(stages[0], forms[0])
    whole_pieces = bool(head.unpack or head.turns)
    # What a turn of a loop leaves may be nothing; of a packed file that is no guess, but checked.
    part = _workers(stages[head.stages :], forms[head.stages :], lines_before=not head.turns)
    idle = not whole_pieces and all(command.words == ("cat",) for command in part.mapped)
    done = head.stages + len(part.told)
    left = zip(stages[head.stages :], forms[head.stages :], strict=True)
    in_one = [_sequential(stage, form) for stage, form in left]
    rest = _why_in_one(stages, forms, done, cut=bool(part.told))
    if whole or idle or (head.inputs is None and not head.turns):
        # Workers would pass bytes on, and nothing else.
        why = whole or "there is no work to share"
        begun = [replace(t, how="in one piece", why=why) for t in (*head.told, *part.told)]
        tail, part = in_one, _Part(told=begun)
    else:
        tail = [*part.then, *in_one[len(part.told) :]]
        part.told = [*head.told, *part.told]
    plan = Plan(
        head.inputs,
        tuple(part.mapped),
        part.gather,
        tuple(part.after),
        tuple(tail),
        (*part.told, *rest),
        pipeline.target,
        head.unpack,
        head.turns,
    )
    if plan.puts_pieces:
        put = Told(f"> {pipeline.target}", "on each piece", "they are parts of one upload")
        return replace(plan, told=(*plan.told, put))
    return plan


def _refuse_wide_counts(stage: Stage, form: Form) -> None:
    if stage.words[0] == "wc" and len(form.words) != 2:
        # GNU makes the columns as wide as the file's size asks for (wc.c, compute_number_width).
        raise UsageError(
            f"line {stage.line}: several counts of a file are as wide as its size",
            next_step="write: cat FILE | wc",
        )


def _why_in_one(
    stages: tuple[Stage, ...], forms: list[Form], done: int, *, cut: bool
) -> list[Told]:
    """Why the stages from `done` on run in one piece."""
    why = "the stages before it give one stream"
    before = forms[done - 1].split if cut else None
    if before and not before.keeps_lines:
        why = "the stage before it leaves no lines to cut at"
    told = []
    for number in range(done, len(stages)):
        form = forms[number]
        reason = form.why if form.split is None else why
        if number == done and form.split and form.split.primed:
            reason = "it squeezes across the cut, and the stage before may leave nothing of a piece"
        told.append(Told(stages[number].text, "in one piece", reason))
    return told


def _head(pipeline: Pipeline, forms: list[Form]) -> _Head:
    """Takes what names the inputs, and what unpacks them, from the front."""
    stages = pipeline.stages
    how, why = "on each file", "each file is one piece: nothing tells where to cut"
    if found := unpacker(stages[0].words):
        unpack, files = found
        inputs = files or ((pipeline.source or "-"),)
        if not stages[0].env and not stages[0].quiet:
            return _Head(inputs, unpack, (Told(stages[0].text, how, why),), stages=1)
    inputs_ = _inputs(pipeline, forms[0])
    if len(stages) > 1 and forms[0].words == ("cat",) and inputs_:
        found = unpacker(stages[1].words)
        plain = not any(stage.env or stage.quiet for stage in stages[:2])
        if found and not found[1] and plain:
            told = [Told(stage.text, how, why) for stage in stages[:2]]
            return _Head(inputs_, found[0], tuple(told), stages=2)
    return _Head(inputs_)


def _loop(each: tuple[Pipeline, ...], more: More | None) -> _Head:
    turns = tuple(_turn(turn, more) for turn in each)
    words = " | ".join(stage.text for stage in each[0].stages)
    others = f", and {len(each) - 1} more" if len(each) > 1 else ""
    told = Told(f"{words}{others}", "each on one worker", "a turn of the loop is one piece")
    names = tuple(name for turn in turns for name in turn.inputs)
    return _Head(tuple(dict.fromkeys(names)), turns=turns, told=(told,))


def _turn(pipeline: Pipeline, more: More | None) -> Turn:
    plan = make(pipeline, "it is a turn of a loop", more)
    line = pipeline.stages[0].line
    if plan.inputs == ("-",):
        raise UsageError(
            f"line {line}: the turns of a loop cannot share stdin", next_step="name a file in it"
        )
    if any(command.inputs for command in plan.tail):
        raise UsageError(f"line {line}: a second input within a loop is not there yet")
    unpack = (Command(plan.unpack),) if plan.unpack else ()
    return Turn(plan.inputs or (), (*unpack, *plan.tail))


def _form(stage: Stage, more: More | None) -> Form:
    form = form_of(stage.words, more)
    if stage.env:
        return replace(form, split=None, why="variables in front of it may change what it does")
    return form


def _inputs(pipeline: Pipeline, first: Form) -> tuple[str, ...] | None:
    if first.files:
        stdin = pipeline.source or "-"
        return tuple(stdin if name == "-" else name for name in first.files)
    if pipeline.source is not None:
        return (pipeline.source,)
    name = first.words[0]
    if name in _NO_STDIN or (name in _SECOND_INPUTS and "-" not in first.words):
        return None
    return ("-",)


@dataclass
class _Part:
    """The stages that workers run; `then` is what the last node does once with what was joined."""

    mapped: list[Command] = field(default_factory=list)
    gather: Gather = field(default_factory=Gather)
    after: list[Command] = field(default_factory=list)
    then: list[Command] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)

    def joined(self, gather: Gather, then: tuple[str, ...] = ()) -> None:
        self.gather = gather
        self.then = [Command(then)] if then else []


def _workers(stages: tuple[Stage, ...], forms: list[Form], *, lines_before: bool) -> _Part:
    """Takes stages for the workers from the front, as many as are right there.

    Args:
        stages, forms: what is left of the pipeline.
        lines_before: there is a line before every piece but the first.
    """
    part = _Part()
    total = lines_before
    for number, (stage, form) in enumerate(zip(stages, forms, strict=True)):
        split = form.split
        if split is None or (split.primed and not total):
            break
        if split.guard:
            part.mapped.append(Command(split.guard))
        part.mapped.append(
            Command(
                split.words or form.words,
                quiet=stage.quiet,
                primed=split.primed,
                text_only=split.text_only,
            )
        )
        how = "on each piece, then joined" if split.gather else "on each piece"
        part.told.append(Told(stage.text, how, form.why))
        if split.gather:
            part.joined(split.gather, split.then)
            if form.words[0] == "sort" and number + 1 < len(stages):
                _after_sort(part, form.orders, stages[number + 1], forms[number + 1])
            break
        total = total and split.total
        if not split.keeps_lines:
            break
    return part


def _after_sort(part: _Part, orders: str, stage: Stage, form: Form) -> None:
    """Adds what may run after `sort` before anything crosses the network, and again when it has."""
    if form.split is None or stage.quiet:
        return
    words = form.split.words or form.words
    if words == ("uniq", "-c") and orders.startswith("lines"):
        kind = "reversed" if orders.endswith("reversed") else "sorted"
        part.joined(Gather((REDUCE, kind), merges=True), form.split.then)
        why = "counts of equal lines are added"
    elif words[0] == "head" or (words == ("uniq",) and orders):
        part.after = [Command(words)]
        why = "once more after each merge"
    else:
        return
    part.mapped.append(Command(words))
    part.told.append(Told(stage.text, "on each piece, then joined", why))


def _sequential(stage: Stage, form: Form) -> Command:
    """A command for the last node, in its own words but for what stands for stdin."""
    words = form.words
    inputs: list[int] = []
    for index, word in enumerate(words[1:], 1):
        remote = word.startswith(S3)
        if form.known or not (remote or _is_file(word)):
            continue
        if words[0] not in _SECOND_INPUTS:
            raise UsageError(
                f"line {stage.line}: {stage.text}: {word} would not be where this runs",
                next_step=f"cat {word} | …; a second input is for comm, diff, join and paste",
            )
        if words[0] == "diff" and not _NAMELESS_DIFF.fullmatch("".join(words[1:-2])):
            raise UsageError(
                f"line {stage.line}: {stage.text} may write names of files; a worker has others",
                next_step="diff -a - FILE; with -b -B -d -E -t -T -w -Z in the same word",
            )
        inputs.append(index)
    return Command(words, stage.env, stage.quiet, inputs=tuple(inputs))


def _is_file(word: str) -> bool:
    # A node has a stdin of its own.
    if word == "/dev/null" or word.startswith(("-", "/dev/std", "/dev/fd/")):
        return False
    try:
        return Path(word).is_file()
    except (OSError, ValueError):
        return False
