"""Decides what runs on the workers, how their outputs are joined, and what comes after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from punchlib.errors import UsageError
from punchlib.sh.commands import form_of
from punchlib.sh.forms import REDUCE, Form, Gather
from punchlib.sh.reading import Pipeline, Stage

#: Workers of one job; jobs of this width have been run (docs/scripts.md).
WIDEST = 128
#: Commands whose operands are files, beside stdin; the last node gets them as streams.
_SECOND_INPUTS = frozenset(("comm", "join", "paste"))
#: Commands that do not read stdin.
_NO_STDIN = frozenset(("seq", "printf", "echo", "yes", "true"))
_S3 = "s3://"


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


def make(
    pipeline: Pipeline, whole: str = "", more: Mapping[tuple[str, ...], Form] | None = None
) -> Plan:
    """Plans a pipeline.

    Args:
        pipeline: what is to run.
        whole: why its input cannot be cut; "" where it can.
        more: the user's own forms (`extensions.forms`).

    Raises:
        UsageError: a command names a file that would not be where it runs.
    """
    stages = pipeline.stages
    forms = [_form(stage, more) for stage in stages]
    for stage, form in zip(stages[1:], forms[1:], strict=True):
        if form.files:
            raise UsageError(
                f"line {stage.line}: {stage.text} reads {form.files[0]} and not the pipe",
                next_step="files are read by the first command of a pipeline",
            )
    inputs = _inputs(pipeline, forms[0])
    if stages[0].words[0] == "wc" and inputs is not None and len(forms[0].words) != 2:
        # GNU makes the columns as wide as the file's size asks for (wc.c, compute_number_width).
        raise UsageError(
            f"line {stages[0].line}: several counts of a file are as wide as its size",
            next_step="write: cat FILE | wc",
        )
    part = _workers(stages, forms)
    done, told = len(part.told), part.told
    whole_stages = [_sequential(stage, form) for stage, form in zip(stages, forms, strict=True)]
    tail = tuple(whole_stages[done:])
    why = "the stages before it give one stream"
    before = forms[done - 1].split if done else None
    if before and not before.keeps_lines:
        why = "the stage before it leaves no lines to cut at"
    for number in range(done, len(stages)):
        form = forms[number]
        reason = form.why if form.split is None else why
        if number == done and form.split and form.split.primed:
            reason = "it squeezes across the cut, and the stage before may leave nothing of a piece"
        told.append(Told(stages[number].text, "in one piece", reason))
    if whole or inputs is None or all(command.words == ("cat",) for command in part.mapped):
        # Workers would pass bytes on, and nothing else.
        why = whole or "there is no work to share"
        told = [
            replace(t, how="in one piece", why=t.why if n >= done else why)
            for n, t in enumerate(told)
        ]
        return Plan(inputs, (), Gather(), (), tuple(whole_stages), tuple(told), pipeline.target)
    tail = (*part.then, *tail)
    mapped, after = tuple(part.mapped), tuple(part.after)
    return Plan(inputs, mapped, part.gather, after, tail, tuple(told), pipeline.target)


def _form(stage: Stage, more: Mapping[tuple[str, ...], Form] | None) -> Form:
    form = form_of(stage.words, more)
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


def _workers(stages: tuple[Stage, ...], forms: list[Form]) -> _Part:
    """Takes stages for the workers from the front, as many as are right there."""
    part = _Part()
    total = True
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
        remote = word.startswith(_S3)
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
