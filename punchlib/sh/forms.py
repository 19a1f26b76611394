"""What the table of commands says of one command with its options. Data only."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

#: Our tool that joins (punchlib/runtime/sh_reduce.py).
REDUCE = "runtime/sh-reduce"
EACH_LINE = "each line by itself"
#: Commands whose status 1 says "nothing found", or "they differ"; the wait script has them too.
MAY_SAY_ONE = frozenset(("grep", "egrep", "fgrep", "zgrep", "comm", "diff", "cmp"))


@dataclass(frozen=True)
class Gather:
    """How the outputs of consecutive pieces become one.

    Gathering is associative: outputs of neighbours may be gathered first, and the results then.

    Attributes:
        words: a command; none is concatenation.
        merges: it takes the outputs as file arguments, in the order of the pieces. Otherwise it
            reads their concatenation.
    """

    words: tuple[str, ...] = ()
    merges: bool = False


@dataclass(frozen=True)
class Split:
    """A command that may run on each piece of its input by itself. Pieces are whole lines.

    Attributes:
        gather: how its outputs become what it would have written; None: their concatenation, so
            that the next command may run on the same piece, where `keeps_lines`.
        keeps_lines: the output for any piece but the last is empty, or ends with a newline.
        total: where the input is not empty and ends with a newline, the output does so, too.
        primed: what it does with a line's first bytes depends on the newline before it.
        text_only: what it does with a line depends on whether there was a NUL before it.
        words: what runs on a piece, where that is not the command itself.
        then: what makes of the joined outputs what the command would have written.
        guard: runs in front of it on a piece, and fails at what would be read otherwise there
            than in the whole.
    """

    gather: Gather | None = None
    keeps_lines: bool = True
    total: bool = True
    primed: bool = False
    text_only: bool = False
    words: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    guard: tuple[str, ...] = ()


@dataclass(frozen=True)
class Form:
    """A command as it stands in a pipeline.

    Attributes:
        words: it and its arguments, without the files that it reads in place of stdin.
        files: those.
        split: None: it must see all of its input at once.
        why: for people, why it runs as it does.
        orders: of `sort`: "total" where equal lines are neighbours (whole lines decide in the
            end), "lines" where they also stand in the order of their bytes, "lines reversed" where
            in its reverse, "" otherwise.
        known: the table reads its arguments: which are files is certain.
    """

    words: tuple[str, ...]
    split: Split | None
    why: str
    files: tuple[str, ...] = ()
    orders: str = ""
    known: bool = True


class NotKnownError(Exception):
    """The table does not know this form; says which part of it."""


def refusing(pattern: str, why: str) -> tuple[str, ...]:
    """A command that passes lines on, and fails with these words at one that matches.

    Args:
        pattern, why: as sed has a pattern and a replacement.
    """
    return ("sed", f"/{pattern}/{{s/^.*$/{why}/;w /dev/stderr\nQ3\n}}")


def one_file(words: Sequence[str], operands: Sequence[str]) -> tuple[str, ...]:
    """The file that it reads; several are no concatenation where one has no newline at its end.

    Raises:
        NotKnownError: several, or one that systems read differently.
    """
    if len(operands) > 1:
        raise NotKnownError(f"{words[0]} with several files")
    if any(o.startswith("+") for o in operands):
        # A file's name, or what POSIX.1-2001 took away (`tail +2`, `sort +1`): systems differ.
        raise NotKnownError(f"{words[0]} {operands[0]}")
    return tuple(o for o in operands if o != "-")


def is_number(text: str | None) -> bool:
    return re.fullmatch(r"[0-9]{1,12}", text or "") is not None


@dataclass(frozen=True)
class Options:
    """The arguments of a command, read by POSIX's guidelines (POSIX 12.2) as GNU does.

    Attributes:
        given: letter and value (None for a flag), in order.
        operands: all others; "-" is one.
    """

    given: tuple[tuple[str, str | None], ...]
    operands: tuple[str, ...]

    def has(self, letters: str) -> bool:
        return any(letter in letters for letter, _ in self.given)

    def values(self, letter: str) -> list[str]:
        return [value or "" for name, value in self.given if name == letter]


def options(
    words: Sequence[str],
    flags: str,
    valued: str = "",
    longs: Mapping[str, str] | None = None,
    *,
    permutes: bool = True,
) -> Options:
    """Reads a command's arguments.

    Args:
        words: with the command's name in front.
        flags: letters without a value.
        valued: letters with one.
        longs: long name (with `--`, and with `=` where it has a value) -> letter.
        permutes: takes options behind operands, too (getopt(3)); tr and awk do not.

    Raises:
        NotKnownError: an option that is in none of these, or what looks like one behind an operand.
    """
    longs = longs or {}
    given: list[tuple[str, str | None]] = []
    operands: list[str] = []
    left = list(words[1:])
    while left:
        word = left.pop(0)
        if operands and not permutes and word.startswith("-") and word != "-":
            raise NotKnownError(f"{words[0]} with {word} behind {operands[-1]}")
        if word == "--":
            operands += left
            break
        if word == "-" or not word.startswith("-"):
            operands.append(word)
            continue
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            letter = longs.get(name + equals)
            if letter is None:
                raise NotKnownError(f"{words[0]} {name}")
            given.append((letter, value if equals else None))
            continue
        for at, letter in enumerate(word[1:], 2):
            if letter in flags:
                given.append((letter, None))
            elif letter in valued:
                if not word[at:] and not left:
                    raise NotKnownError(f"{words[0]} -{letter} without a value")
                given.append((letter, word[at:] or left.pop(0)))
                break
            else:
                raise NotKnownError(f"{words[0]} -{letter}")
    return Options(tuple(given), tuple(operands))


def rebuilt(name: str, found: Options, operands: Sequence[str] = ()) -> tuple[str, ...]:
    """The command with these options, each by itself, and with these operands."""
    words = [name]
    for letter, value in found.given:
        words += [f"-{letter}"] if value is None else [f"-{letter}", value]
    if any(o.startswith("-") and o != "-" for o in operands):
        words.append("--")
    return (*words, *operands)


#: Reads a command's words; raises NotKnownError.
Reader = Callable[[Sequence[str]], Form]
