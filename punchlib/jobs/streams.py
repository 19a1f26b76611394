"""What a script does with FIFOs and streams, read from its text."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import PurePath

from punchlib.jobs.shell_words import NotUnderstoodError, ShellCommand, Word, commands
from punchlib.runtime import catalogue

_FUNCTION = re.compile(r"^\s*(?:function\s+)?([\w-]+)\s*\(\)", re.MULTILINE)

_READ, _WRITTEN, _UNKNOWN = catalogue.READ, catalogue.WRITTEN, "unknown"

#: Commands that neither read nor write the FIFO they name.
_NEUTRAL = frozenset(("rm", "mkfifo", "chmod", "ls", "test", "[", "[[", "echo", "unlink", "stat"))
#: Commands whose file arguments are all inputs.
_READERS = frozenset(
    (
        "cat",
        "comm",
        "paste",
        "head",
        "tail",
        "grep",
        "egrep",
        "fgrep",
        "wc",
        "cut",
        "rev",
    )
)


@dataclass(frozen=True)
class StreamUse:
    """One argument of pashlib."""

    verb: str
    key: str
    fifo: str


@dataclass
class Reading:
    """What was found in one script.

    Attributes:
        fifos: literal paths that mkfifo makes.
        uses: path -> how it is used: "read", "written", "unknown".
        streams: connections whose key is literal.
        doubts: what could not be understood, for people.
        tools: names of the commands of its stages.
        functions: names that the script defines.
        collations: what its collating commands run under; None where that is not known.
    """

    fifos: set[str] = field(default_factory=set)
    uses: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    streams: list[StreamUse] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    tools: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    collations: set[str | None] = field(default_factory=set)


def read(script: str) -> Reading:
    """Reads a script. Never fails: what it does not understand becomes a doubt."""
    found = Reading(functions=set(_FUNCTION.findall(script)))
    try:
        parsed = commands(script)
    except NotUnderstoodError as problem:
        found.doubts.append(str(problem))
        return found
    for command in parsed:
        if command.name == "mkfifo":
            _fifos(found, command)
    locale: dict[str, str | None] = {}
    for command in parsed:
        _collation(found, command, locale)
        if command.background and command.name:
            found.tools.add(command.name)
        for operator, target in command.redirections:
            use = {"<": _READ, "<>": _UNKNOWN, "<<<": _UNKNOWN, "<<": ""}.get(operator, _WRITTEN)
            _use(found, target, use)
        _all(found, command.assignments, _UNKNOWN)
        if command.words and command.name not in _NEUTRAL:
            _arguments(found, command)
        elif command.words and command.name == "":
            _all(found, command.words, _UNKNOWN)
    if "eval" in (c.name for c in parsed):
        found.doubts.append("it uses eval")
    return found


def _fifos(found: Reading, command: ShellCommand) -> None:
    skip = False
    for word in command.words[1:]:
        if skip or word.text.startswith("-"):
            skip = word.text in ("-m", "--mode")
        elif word.literal:
            found.fifos.add(word.text)
        else:
            found.doubts.append(f"the FIFO {word.text} depends on a variable")


def _arguments(found: Reading, command: ShellCommand) -> None:
    words = command.words
    name = PurePath(command.name).name
    if name.startswith("python3") and len(words) > 1 and words[1].literal:
        words = words[1:]
        name = PurePath(words[0].text).name
    arguments = words[1:]
    if name in catalogue.TOOLS:
        for index, path, use in catalogue.paths(name, [word.text for word in arguments]):
            _use(found, Word(path, arguments[index].literal), use)
        if name == "pashlib":
            for word in arguments:
                _pashlib(found, word)
        _all(found, _embedded(name, arguments), _UNKNOWN)
    elif name == "tee":
        _all(found, arguments, _WRITTEN)
    elif name in _READERS or (name == "sort" and not _sort_writes(arguments)):
        _all(found, arguments, _READ)
    else:
        _all(found, words, _UNKNOWN)


def _sort_writes(arguments: list[Word]) -> bool:
    return any(w.text.startswith(("-o", "--output")) for w in arguments)


def _embedded(name: str, arguments: list[Word]) -> list[Word]:
    """The arguments that are a command of their own."""
    return arguments if name == "r_wrap" else []


def _pashlib(found: Reading, word: Word) -> None:
    parts = word.text.split("*", 4)
    if len(parts) != 5 or parts[0] not in ("send", "recv"):
        found.doubts.append(f"the pashlib argument {word.text!r} is not understood")
        return
    verb, key, _, _, fifo = parts
    if "$" in key or "`" in key:
        found.doubts.append(f"the key {key} depends on a variable")
    else:
        found.streams.append(StreamUse(verb, key, fifo))


def _all(found: Reading, words: list[Word], use: str) -> None:
    for word in words:
        _use(found, word, use)


def _use(found: Reading, word: Word, use: str) -> None:
    if not use:
        return
    if word.text in found.fifos:
        found.uses[word.text].add(use)
        return
    # Inside of a longer word, as in bash -c '…': used, but who knows how.
    for fifo in found.fifos:
        if fifo in word.text:
            found.uses[fifo].add(_UNKNOWN)


_COLLATING = frozenset(("sort", "comm", "join", "uniq"))
_LOCALE = ("LC_ALL", "LC_COLLATE", "LANG")


def _collation(found: Reading, command: ShellCommand, locale: dict[str, str | None]) -> None:
    """Follows the locale variables and notes what each collating command runs under."""
    here = dict(locale)
    exported = command.words[1:] if command.name in ("export", "declare", "local") else []
    for word in [*command.assignments, *exported]:
        name, equals, value = word.text.partition("=")
        if name in _LOCALE and equals:
            here[name] = value if word.literal else None
    if exported or not command.words:
        locale.update(here)
    if command.name == "unset":
        for word in command.words[1:]:
            locale.pop(word.text, None)
    shown = " ".join(w.text for w in command.words)
    if any(name in shown.split() for name in _COLLATING):
        order = next((here[n] for n in _LOCALE if n in here and here[n] != ""), "")
        found.collations.add(None if order is None else normalised(order))


def normalised(locale: str) -> str:
    """One name for the locales that all collate by bytes."""
    plain = locale.lower().replace("-", "")
    return "C" if plain in ("", "c", "posix", "c.utf8") else plain
