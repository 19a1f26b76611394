"""Reads a pipeline: simple commands, redirections, NAME=value, $NAME, comments, several lines.

What is not understood is refused with its place, and never guessed. The words come out expanded
(POSIX 2.6: parameters, field splitting, pathnames, quotes), as one shell on this machine would
expand them; the patterns of pathnames are expanded by bash itself, under LC_ALL=C.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from punchlib.errors import UsageError
from punchlib.sh import dash
from punchlib.sh.object_patterns import S3, ObjectPattern, refused

#: Characters of a script.
LONGEST = 1 << 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMMAND = re.compile(r"[A-Za-z0-9_./+-]+")
_SYNTAX = re.compile(r"^\S+: (\d+): (Syntax error: .*)$")
_UNEXPECTED = re.compile(r'"([^"]+)" unexpected')
_PATTERN = frozenset("*?[")
_BLANK = re.compile(r"[ \t\n]+")
#: Words that bash takes for more than a command's name, and libdash does not.
_RESERVED = frozenset(("time", "coproc", "select", "function", "[[", "exec", "eval", "source", "."))
#: What libdash calls the other kinds of commands.
_KINDS = {
    "Semi": "a list of commands (;)",
    "And": "&&",
    "Or": "||",
    "Not": "!",
    "Background": "a command in the background (&)",
    "Subshell": "a subshell ( … )",
    "Redir": "a redirected group",
    "If": "if",
    "While": "a loop other than `for` in front",
    "For": "a loop other than `for` in front",
    "Case": "case",
    "Defun": "a function",
}
#: What decides how text collates; jobs run under C.
_LOCALE = re.compile(r"LC_\w+|LANG|LANGUAGE")
_BYTEWISE = ("C", "POSIX")


@dataclass(frozen=True)
class Stage:
    """One command of the pipeline.

    Attributes:
        words: its name and arguments, expanded.
        env: what stands in front of it as NAME=value.
        quiet: its stderr goes to /dev/null.
        line: where it stands, from 1.
    """

    words: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    quiet: bool = False
    line: int = 1

    @property
    def text(self) -> str:
        """As a shell takes it."""
        pairs = [f"{name}={shlex.quote(value)}" for name, value in self.env]
        return " ".join([*pairs, *map(shlex.quote, self.words)])


@dataclass(frozen=True)
class Pipeline:
    """What is to run.

    Attributes:
        stages: its commands; after a loop, what follows it, and perhaps nothing.
        source: what `<` of the first command names; None where it has none.
        target: what `>` of the last command names; None is stdout.
        each: the turns of a loop that it begins with, each a pipeline.
    """

    stages: tuple[Stage, ...]
    source: str | None = None
    target: str | None = None
    each: tuple[Pipeline, ...] = ()


#: Gives the objects that a pattern of s3://… stands for.
Expand = Callable[[ObjectPattern], list[str]]


def read(text: str, environ: Mapping[str, str], expand: Expand = refused) -> Pipeline:
    """Reads a script of assignments and one pipeline.

    Args:
        text: the script.
        environ: the variables that it may use.
        expand: is asked for the objects of a pattern.

    Raises:
        UsageError: something in it is not understood; names the line and the text.
    """
    if len(text) > LONGEST:
        raise UsageError(f"the script has more than {LONGEST} characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError("the script is no valid UTF-8") from None
    if "\0" in text:
        raise UsageError("the script holds a NUL byte")
    try:
        nodes = dash.tree(text)
    except dash.SyntaxRefusedError as error:
        _refuse_syntax(text, str(error))
    return _Reader(text, environ, expand).pipeline(nodes)


def _refuse_syntax(text: str, said: str) -> NoReturn:
    """libdash knows the line; the column follows where the culprit stands there once."""
    found = _SYNTAX.match(said)
    if not found:
        raise UsageError(f"the pipeline cannot be read: {said}")
    number, why = int(found[1]), found[2]
    lines = text.split("\n")
    line = lines[number - 1] if number <= len(lines) else ""
    place = f"line {number}"
    token = _UNEXPECTED.search(why)
    if token and line.count(token[1]) == 1:
        place += f", column {line.index(token[1]) + 1}"
    step = ""
    if re.search(r"[<>]\(", line):
        step = "<( … ) is no POSIX shell: name a file in its place"
    elif "<<<" in line:
        step = "<<< is no POSIX shell: begin with printf"
    raise UsageError(f"{place}: {why}: {line.strip()[:200]}", next_step=step)


class _Reader:
    def __init__(self, text: str, environ: Mapping[str, str], expand: Expand) -> None:
        self._lines = text.split("\n")
        self._variables = dict(environ)
        self._expand = expand
        self._line = 1

    def _refuse(self, why: str, next_step: str = "") -> NoReturn:
        line = self._lines[min(self._line, len(self._lines)) - 1].strip()
        raise UsageError(f"line {self._line}: {why}: {line[:200]}", next_step=next_step)

    def pipeline(self, nodes: list[Any]) -> Pipeline:
        found: Pipeline | None = None
        for kind, content in nodes:
            if kind == "Command" and not content[2]:
                self._line = content[0]
                if content[3]:
                    self._refuse("a redirection without a command")
                if found:
                    self._refuse("an assignment after the pipeline")
                for name, value in self._assignments(content[1]):
                    self._variables[name] = value
                continue
            if kind not in ("Pipe", "Command", "For") and not _is_loop(kind, content):
                self._line = _first_line(content) or self._line
                self._refuse(f"{_KINDS.get(kind, kind)} is not there yet", _ONE)
            if kind == "Pipe" and content[0]:
                self._refuse(f"{_KINDS['Background']} is not there yet", _ONE)
            commands = content[1] if kind == "Pipe" else [[kind, content]]
            if found:
                self._line = _first_line(commands) or self._line
                self._refuse("a second pipeline", _ONE)
            found = self._stages(commands)
        if not found:
            raise UsageError("there is no command in it", next_step=_ONE)
        return found

    def _loop(self, content: list[Any]) -> tuple[Pipeline, ...]:
        """The turns of `for NAME in WORD…; do PIPELINE; done`."""
        self._line, words, (kind, body), name = content
        if kind not in ("Pipe", "Command") or (kind == "Pipe" and body[0]):
            self._refuse("a loop over more than one pipeline is not there yet")
        commands = body[1] if kind == "Pipe" else [[kind, body]]
        before = self._variables.get(name)
        turns = []
        for value in [field for word in words for field in self._fields(word)]:
            self._variables[name] = value
            turns.append(self._stages(commands))
            if turns[-1].target is not None or turns[-1].each:
                self._refuse("> within a loop, or a loop in it, is not there yet", "done > FILE")
        if not turns:
            self._refuse("a loop over nothing")
        if before is None:
            del self._variables[name]
        else:
            self._variables[name] = before
        return tuple(turns)

    def _stages(self, commands: list[Any]) -> Pipeline:
        stages, source, target = [], None, None
        each: tuple[Pipeline, ...] = ()
        kind, content = commands[0]
        if _is_loop(kind, content) and len(commands) == 1:
            (_, (kind, content), redirections) = content
            target = self._redirected(redirections)
        if kind == "For":
            each = self._loop(content)
            commands = commands[1:]
        for number, (kind, content) in enumerate(commands):
            if kind != "Command":
                self._line = _first_line(content) or self._line
                self._refuse(f"{_KINDS.get(kind, kind)} as a part of a pipeline is not there yet")
            line, assigned, arguments, redirections = content
            # A line that goes on by \ counts up while it is read: libdash names its end.
            self._line = line
            words = [field for word in arguments for field in self._fields(word)]
            if not words:
                self._refuse("a command that is empty after its variables are expanded")
            if words[0] in _RESERVED or not _COMMAND.fullmatch(words[0]):
                self._refuse(f"{words[0]!r} cannot be a command here")
            quiet = False
            for verb, detail in redirections:
                match verb, detail[0], detail[1]:
                    case "File", "From", 0 if number == 0 and source is None and not each:
                        source = self._one_field(detail[2])
                    case "File", "To" | "Clobber", 1 if number == len(commands) - 1 and not target:
                        target = self._one_field(detail[2])
                    case "File", "To" | "Append", 2 if self._one_field(detail[2]) == "/dev/null":
                        quiet = True
                    case _:
                        self._refuse(
                            "this redirection is not there yet",
                            "< on the first command, > on the last, 2>/dev/null on any",
                        )
            env = tuple(self._assignments(assigned))
            stages.append(Stage(tuple(words), env, quiet, line))
        return Pipeline(tuple(stages), source, target, each)

    def _redirected(self, redirections: list[Any]) -> str:
        """What `done > FILE` names."""
        (kind, (verb, fd, word)), *more = redirections
        if more or kind != "File" or verb not in ("To", "Clobber") or fd != 1:
            self._refuse("this redirection of a loop is not there yet", "done > FILE")
        return self._one_field(word)

    def _assignments(self, pairs: list[Any]) -> list[tuple[str, str]]:
        """NAME=value; where value is one word, which is not split (POSIX 2.9.1)."""
        found = []
        for name, word in pairs:
            value = "".join(text for text, _ in self._parts(word, quoted=True))
            if _LOCALE.fullmatch(name):
                if value not in _BYTEWISE:
                    self._refuse(f"{name}={value}: jobs sort by bytes, under LC_ALL=C")
                continue
            if name in ("IFS", "PATH", "POSIXLY_CORRECT", "BASH_ENV", "ENV"):
                self._refuse(f"{name} decides how everything else is read, and cannot be set here")
            found.append((name, value))
        return found

    def _one_field(self, word: list[Any]) -> str:
        fields = self._fields(word)
        if len(fields) != 1 or not fields[0]:
            self._refuse("a redirection that is not to one file", "put it in double quotes")
        return fields[0]

    def _fields(self, word: list[Any]) -> list[str]:
        """The fields that one word becomes: none, one, or several."""
        if len(word) == 1 and word[0][0] == "V":
            # Alone and unquoted, as in `sort $OPTIONS`: it is split at blanks.
            fields = _BLANK.sub(" ", self._value(word[0][1])).strip().split(" ")
            if any(_PATTERN & set(f) or "\\" in f for f in fields):
                self._refuse(f"${word[0][1][2]} holds a pattern", "put it in double quotes")
            return [f for f in fields if f]
        parts = self._parts(word, quoted=False)
        plain = "".join(text for text, quoted in parts if not quoted)
        if plain.startswith("~") or (re.search(r"\{.*(,|\.\.).*\}", plain)):
            self._refuse("~ and { … } are not expanded here", "quote it, or write it out")
        text = "".join(text for text, _ in parts)
        if not _PATTERN & set(plain):
            return [text] if text or any(quoted for _, quoted in parts) else []
        if text.startswith(S3):
            try:
                return self._expand(ObjectPattern.of(parts))
            except UsageError as error:
                self._refuse(error.message, error.next_step)
        return _by_bash(parts)

    def _parts(self, word: list[Any], *, quoted: bool) -> list[tuple[str, bool]]:
        """The pieces of a word, each with whether quotes protect it."""
        parts: list[tuple[str, bool]] = []
        for kind, content in word:
            if kind == "C":
                parts.append((chr(content), quoted))
            elif kind == "E":
                parts.append((chr(content), True))
            elif kind == "Q":
                if parts and parts[-1] == ("$", False):
                    self._refuse('$" … " is not there')
                parts += [("", True), *self._parts(content, quoted=True)]
            elif kind == "V":
                value = self._value(content)
                if not quoted and (_BLANK.search(value) or _PATTERN & set(value) or "\\" in value):
                    self._refuse(
                        f"${content[2]} holds blanks or a pattern", "put it in double quotes"
                    )
                parts.append((value, True) if quoted or value else ("", False))
            elif kind == "B":
                self._refuse("a command substitution is not there", "write its result")
            elif kind == "A":
                self._refuse("arithmetic is not there", "write its result")
            else:
                self._refuse("~ is not expanded here", "write $HOME")
        return parts

    def _value(self, variable: list[Any]) -> str:
        form, null_too, name, inner = variable
        if not _NAME.fullmatch(name):
            self._refuse(f"${name} is not there: only variables by name")
        value = self._variables.get(name)
        if form == "Minus":
            if value is None or (null_too and not value):
                return "".join(text for text, _ in self._parts(inner, quoted=True))
            return value
        if form != "Normal":
            self._refuse(f"this form of ${{{name}…}} is not there", f"${name} or ${{{name}:-text}}")
        if value is None:
            self._refuse(f"${name} is not set", "a shell would take nothing for it; set it")
        return value


_ONE = "one pipeline, or for … do … done | …, after NAME=value on lines of their own"


def _is_loop(kind: str, content: Any) -> bool:
    """Is it `for … done > FILE`?"""
    return kind == "Redir" and content[1][0] == "For"


def _first_line(content: Any) -> int | None:
    """The line of the first simple command in a part of the tree."""
    if isinstance(content, list):
        if len(content) == 2 and content[0] == "Command" and isinstance(content[1][0], int):
            return int(content[1][0])
        for part in content:
            if (line := _first_line(part)) is not None:
                return line
    return None


def _by_bash(parts: list[tuple[str, bool]]) -> list[str]:
    """Expands a pattern of pathnames as bash does here; without a match it stays as it is."""
    # One run of quoted text is one quoted word: "#" or "'" in it mean nothing to bash.
    word = "".join(
        text if not quoted and re.fullmatch(r"[\w*?\[\]^!:.,/=+@%-]*", text) else shlex.quote(text)
        for text, quoted in parts
        if text
    )
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-c", f"printf '%s\\0' {word}"],
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    return [os.fsdecode(field) for field in done.stdout.split(b"\0")[:-1]]
