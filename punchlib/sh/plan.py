"""Decides what runs on the workers, how their outputs are joined, and what comes after it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from punchlib.errors import UsageError
from punchlib.sh.commands import REDUCE, form_of
from punchlib.sh.forms import Form, Gather
from punchlib.sh.object_patterns import S3
from punchlib.sh.packed import unpacker
from punchlib.sh.reading import Pipeline, Stage

#: Workers of one job; jobs of this width have been run (docs/scripts.md).
WIDEST = 128
#: Commands whose operands are files, beside stdin; the last node gets them as streams.
_SECOND_INPUTS = frozenset(("comm", "join", "paste"))
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


def make(pipeline: Pipeline, whole: str = "") -> Plan:
    """Plans a pipeline.

    Args:
        pipeline: what is to run.
        whole: why its input cannot be cut; "" where it can.

    Raises:
        UsageError: a command names a file that would not be where it runs.
    """
    stages = pipeline.stages
    forms = [_form(stage) for stage in stages]
    first = 0 if pipeline.each else 1
    for stage, form in zip(stages[first:], forms[first:], strict=True):
        if form.files:
            raise UsageError(
                f"line {stage.line}: {stage.text} reads {form.files[0]} and not the pipe",
                next_step="files are read by the first command of a pipeline",
            )
    head = _head(pipeline, forms)
    if (
        not pipeline.each
        and stages[0].words[0] == "wc"
        and head.inputs is not None
        and len(forms[0].words) != 2
    ):
        # GNU makes the columns as wide as the file's size asks for (wc.c, compute_number_width).
        raise UsageError(
            f"line {stages[0].line}: several counts of a file are as wide as its size",
            next_step="write: cat FILE | wc",
        )
    begin, told = head.stages, list(head.told)
    whole_pieces = bool(head.unpack or head.turns)
    mapped, gather, after, more = _workers(
        stages[begin:], forms[begin:], lines_before=not whole_pieces
    )
    told += more
    done = begin + len(more)
    tail = tuple(
        _sequential(stage, form) for stage, form in zip(stages[done:], forms[done:], strict=True)
    )
    why = "the stages before it give one stream"
    before = forms[done - 1].split if done > begin else None
    if before and not before.keeps_lines:
        why = "the stage before it leaves no lines to cut at"
    for number in range(done, len(stages)):
        form = forms[number]
        reason = form.why if form.split is None else why
        if number == done and form.split and form.split.primed:
            reason = "it squeezes across the cut, and the stage before may leave nothing of a piece"
        told.append(Told(stages[number].text, "in one piece", reason))
    idle = not whole_pieces and all(command.words == ("cat",) for command in mapped)
    if whole or idle or (head.inputs is None and not head.turns):
        # Workers would pass bytes on, and nothing else.
        told = [
            replace(
                t,
                how="in one piece",
                why=t.why if n >= done else whole or "there is no work to share",
            )
            for n, t in enumerate(told)
        ]
        tail = (*mapped, *tail)
        mapped, gather, after = (), Gather(), ()
    return Plan(
        head.inputs,
        mapped,
        gather,
        after,
        tail,
        tuple(told),
        pipeline.target,
        head.unpack,
        head.turns,
    )


def _head(pipeline: Pipeline, forms: list[Form]) -> _Head:
    """Takes what names the inputs, and what unpacks them, from the front."""
    if pipeline.each:
        return _loop(pipeline.each)
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


def _loop(each: tuple[Pipeline, ...]) -> _Head:
    turns = tuple(map(_turn, each))
    words = " | ".join(stage.text for stage in each[0].stages)
    more = f", and {len(each) - 1} more" if len(each) > 1 else ""
    told = Told(f"{words}{more}", "each on one worker", "a turn of the loop is one piece")
    names = tuple(name for turn in turns for name in turn.inputs)
    return _Head(tuple(dict.fromkeys(names)), turns=turns, told=(told,))


def _turn(pipeline: Pipeline) -> Turn:
    plan = make(pipeline, whole="it is a turn of a loop")
    line = pipeline.stages[0].line
    if plan.inputs == ("-",):
        raise UsageError(
            f"line {line}: the turns of a loop cannot share stdin", next_step="name a file in it"
        )
    if any(command.inputs for command in plan.tail):
        raise UsageError(f"line {line}: a second input within a loop is not there yet")
    unpack = (Command(plan.unpack),) if plan.unpack else ()
    return Turn(plan.inputs or (), (*unpack, *plan.tail))


def _form(stage: Stage) -> Form:
    form = form_of(stage.words)
    if stage.env:
        return replace(form, split=None, why="variables in front of it may change what it does")
    return form


def _inputs(pipeline: Pipeline, first: Form) -> tuple[str, ...] | None:
    if first.files:
        return tuple(first.files)
    if pipeline.source is not None:
        return (pipeline.source,)
    name = first.words[0]
    if name in _NO_STDIN or (name in _SECOND_INPUTS and "-" not in first.words):
        return None
    return ("-",)


def _workers(
    stages: tuple[Stage, ...], forms: list[Form], *, lines_before: bool
) -> tuple[tuple[Command, ...], Gather, tuple[Command, ...], list[Told]]:
    """Takes stages for the workers from the front, as many as are right there.

    Args:
        stages, forms: what is left of the pipeline.
        lines_before: there is a line before every piece but the first.
    """
    mapped: list[Command] = []
    told: list[Told] = []
    total = lines_before
    for number, (stage, form) in enumerate(zip(stages, forms, strict=True)):
        split = form.split
        if split is None or (split.primed and not total):
            break
        mapped.append(
            Command(form.words, quiet=stage.quiet, primed=split.primed, text_only=split.text_only)
        )
        told.append(Told(stage.text, "on each piece", form.why))
        if split.gather:
            told[-1] = replace(told[-1], how="on each piece, then joined")
            gather, after, more = _combined(stages[number + 1 :], forms[number:], split.gather)
            told += more
            mapped += [Command(f.words) for f in forms[number + 1 : number + 1 + len(more)]]
            return tuple(mapped), gather, after, told
        total = total and split.total
        if not split.keeps_lines:
            break
    return tuple(mapped), Gather(), (), told


def _combined(
    following: tuple[Stage, ...], forms: list[Form], gather: Gather
) -> tuple[Gather, tuple[Command, ...], list[Told]]:
    """What may run after `sort` before anything crosses the network, and again when it has."""
    orders = forms[0].orders
    if forms[0].words[0] != "sort" or not following or following[0].quiet:
        return gather, (), []
    stage, form = following[0], forms[1]
    if form.split is None:
        return gather, (), []
    if form.words == ("uniq", "-c") and orders.startswith("lines"):
        kind = "reversed" if orders.endswith("reversed") else "sorted"
        told = Told(stage.text, "on each piece, then joined", "counts of equal lines are added")
        return Gather((REDUCE, kind), merges=True), (), [told]
    if form.words[0] == "head" or (form.words == ("uniq",) and orders):
        told = Told(stage.text, "on each piece, then joined", "once more after each merge")
        return gather, (Command(form.words),), [told]
    return gather, (), []


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
                next_step=f"cat {word} | …; only comm, join and paste may have a second input",
            )
        inputs.append(index)
    return Command(words, stage.env, stage.quiet, inputs=tuple(inputs))


def _is_file(word: str) -> bool:
    if word.startswith("-") or word == "/dev/null":
        return False
    try:
        return Path(word).is_file()
    except (OSError, ValueError):
        return False
