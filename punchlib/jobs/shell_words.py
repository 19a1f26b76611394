"""Splits a shell script into simple commands, as far as that can be done without running it.

This is no shell. It knows quotes, comments, operators, redirections and here-documents, enough
to see which words a command has. Where a word depends on a variable or a substitution its value
is not known; whoever uses this must then say nothing rather than guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


class NotUnderstoodError(ValueError):
    """The script's quoting or nesting could not be followed."""


_OPERATORS = (";;&", "&&", "||", ";;", ";&", "|&", "<(", ">(", ";", "&", "|", "(", ")", "\n")
_REDIRECTIONS = ("<<<", "<<-", "&>>", "<<", ">>", "<&", ">&", "<>", ">|", "&>", "<", ">")
#: Words after which another command begins.
_KEYWORDS = frozenset(
    ("{", "}", "!", "if", "then", "else", "elif", "fi", "while", "until", "do", "done", "time")
)


@dataclass(frozen=True)
class Word:
    """One word.

    Attributes:
        text: with the quotes taken off.
        literal: its value is `text`; no expansion in it.
        quoted: part of it was quoted.
    """

    text: str
    literal: bool = True
    quoted: bool = False


@dataclass
class ShellCommand:
    """A simple command.

    Attributes:
        assignments: NAME=VALUE in front of it.
        words: its name and arguments.
        redirections: (operator, target).
        background: an `&` ends it.
    """

    assignments: list[Word] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    redirections: list[tuple[str, Word]] = field(default_factory=list)
    background: bool = False

    @property
    def name(self) -> str:
        """The command's name; "" where it is not known."""
        return self.words[0].text if self.words and self.words[0].literal else ""


def commands(script: str) -> list[ShellCommand]:
    """All simple commands, also those inside of functions, groups and `<( … )`.

    Raises:
        NotUnderstoodError: the text could not be followed to its end.
    """
    found: list[ShellCommand] = []
    current = ShellCommand()
    pending = ""
    for kind, word in _tokens(script):
        if kind == "operator":
            if current.words or current.assignments or current.redirections:
                current.background = word.text == "&"
                found.append(current)
            current, pending = ShellCommand(), ""
        elif kind == "redirection":
            pending = word.text
        elif pending:
            current.redirections.append((pending, word))
            pending = ""
        elif not current.words and word.text in _KEYWORDS and not word.quoted:
            continue
        elif not current.words and _is_assignment(word):
            current.assignments.append(word)
        else:
            current.words.append(word)
    if current.words or current.assignments or current.redirections:
        found.append(current)
    return found


def _is_assignment(word: Word) -> bool:
    name, equals, _ = word.text.partition("=")
    return bool(equals) and name.removesuffix("+").isidentifier()


def _tokens(text: str) -> Iterator[tuple[str, Word]]:
    """(kind, word) with kind "word", "operator" or "redirection"."""
    at, heredocs = 0, []
    while at < len(text):
        char = text[at]
        if char in " \t\r":
            at += 1
        elif text.startswith("\\\n", at):
            at += 2
        elif char == "#":
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif redirection := _redirection(text, at):
            operator, size = redirection
            yield "redirection", Word(operator)
            at += size
            if operator in ("<<", "<<-"):
                word, at = _word(text, _skip_blanks(text, at))
                yield "word", word
                heredocs.append((word.text, operator == "<<-"))
        elif operator := next((o for o in _OPERATORS if text.startswith(o, at)), ""):
            yield "operator", Word(operator)
            at += len(operator)
            if operator == "\n":
                for end_word, strip in heredocs:
                    body, at = _heredoc(text, at, end_word, strip)
                    # Shown as a here-string on a command of its own.
                    yield "redirection", Word("<<<")
                    yield "word", Word(body, literal=False, quoted=True)
                    yield "operator", Word("\n")
                heredocs = []
        else:
            word, at = _word(text, at)
            yield "word", word


def _redirection(text: str, at: int) -> tuple[str, int] | None:
    """A redirection operator at this place, with a leading file descriptor."""
    digits = at
    while digits < len(text) and text[digits].isdigit():
        digits += 1
    if text.startswith(("<(", ">("), digits):
        return None
    for operator in _REDIRECTIONS:
        if text.startswith(operator, digits):
            return operator, digits - at + len(operator)
    return None


def _skip_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t":
        at += 1
    return at


def _heredoc(text: str, at: int, end_word: str, strip: bool) -> tuple[str, int]:
    start = at
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        line = text[at:end]
        if (line.lstrip("\t") if strip else line) == end_word:
            return text[start:at], min(end + 1, len(text))
        at = end + 1
    # No end: then it was a shift in an arithmetic expression.
    return "", start


def _word(text: str, at: int) -> tuple[Word, int]:
    out: list[str] = []
    literal, quoted = True, False
    while at < len(text):
        char = text[at]
        if char in " \t\r\n;&|()<>":
            break
        if char == "'":
            end = _find(text, "'", at + 1)
            out.append(text[at + 1 : end])
            at, quoted = end + 1, True
        elif text.startswith("$'", at):
            end = at + 2
            while text[end : end + 1] not in ("'", ""):
                end += 2 if text[end] == "\\" else 1
            out.append(text[at : _find(text, "'", end) + 1])
            at, literal, quoted = end + 1, False, True
        elif char == '"':
            part, plain, at = _double_quoted(text, at + 1)
            out.append(part)
            literal, quoted = literal and plain, True
        elif char == "\\":
            if text[at + 1 : at + 2] != "\n":
                out.append(text[at + 1 : at + 2])
            at += 2
        elif char in "$`":
            end = _skip_expansion(text, at)
            out.append(text[at:end])
            literal = literal and end == at + 1 and char == "$"
            at = end
        else:
            out.append(char)
            at += 1
    return Word("".join(out), literal, quoted), at


def _double_quoted(text: str, at: int) -> tuple[str, bool, int]:
    out: list[str] = []
    literal = True
    while at < len(text) and text[at] != '"':
        if text[at] == "\\" and text[at + 1 : at + 2] in ("$", "`", '"', "\\", "\n"):
            out.append("" if text[at + 1] == "\n" else text[at + 1])
            at += 2
        elif text[at] in "$`":
            end = _skip_expansion(text, at)
            out.append(text[at:end])
            literal = literal and end == at + 1 and text[at] == "$"
            at = end
        else:
            out.append(text[at])
            at += 1
    if at >= len(text):
        raise NotUnderstoodError("a double quote is not closed")
    return "".join(out), literal, at + 1


def _skip_expansion(text: str, at: int) -> int:
    """The end of `$name`, `${…}`, `$(…)` or a backquoted command; at + 1 for a lone `$`."""
    if text[at] == "`":
        return _find(text, "`", at + 1) + 1
    following = text[at + 1 : at + 2]
    if following in ("{", "("):
        closing = {"{": "}", "(": ")"}[following]
        depth = 0
        for place in range(at + 1, len(text)):
            depth += (text[place] == following) - (text[place] == closing)
            if depth == 0:
                return place + 1
        raise NotUnderstoodError(f"{text[at : at + 2]} is not closed")
    end = at + 1
    if following.isalpha() or following == "_":
        while end < len(text) and (text[end].isalnum() or text[end] == "_"):
            end += 1
    elif following and following in "0123456789@*#?$!-":
        end += 1
    return end


def _find(text: str, char: str, at: int) -> int:
    place = text.find(char, at)
    if place < 0:
        raise NotUnderstoodError(f"a {char} is not closed")
    return place
