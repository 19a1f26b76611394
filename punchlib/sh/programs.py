"""Which programs of sed and jq treat each line by itself: a short list, everything else is not."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SPACE = " \t"


@dataclass(frozen=True)
class SedProgram:
    """A script that keeps nothing from line to line.

    Attributes:
        deletes: a line may give no line.
    """

    deletes: bool


def sed_program(script: str) -> SedProgram | None:
    """Reads a sed script of `s`, `y`, `d`, `p` and `G`, each for all lines or those of a /regex/.

    G appends the hold space, which is empty as long as nothing is put there.

    Line numbers, `$`, ranges, the hold space, `q`, `w`, labels and an empty regex, which stands
    for the last one *used*, look beyond the line (POSIX sed, GNU sed 3 and 4).

    Returns:
        None where there is anything else in it.
    """
    at, deletes, count = 0, False, 0
    while True:
        while at < len(script) and script[at] in _SPACE + ";\n":
            at += 1
        if at == len(script):
            return SedProgram(deletes) if count else None
        count += 1
        if script[at] == "/":
            found = _until(script, at + 1, "/")
            if not found or not found[0]:
                return None
            at = found[1]
            if script[at : at + 1] == "I":
                at += 1
            while script[at : at + 1] in ("!", " ") and at < len(script):
                at += 1
        verb = script[at : at + 1]
        at += 1
        if verb in ("s", "y"):
            after = _substitution(script, at, verb)
            if after is None:
                return None
            at = after
        elif verb == "d":
            deletes = True
        elif verb not in ("p", "G"):
            return None
        while at < len(script) and script[at] in _SPACE:
            at += 1
        if at < len(script) and script[at] not in ";\n":
            return None


def _substitution(script: str, at: int, verb: str) -> int | None:
    """The place behind `s/…/…/flags` or `y/…/…/`, or None where it is not plain."""
    mark = script[at : at + 1]
    if not mark or mark.isalnum() or mark in "\\\n []{}()*+?.^$&" or ord(mark) > 126:
        return None
    first = _until(script, at + 1, mark)
    if not first or not first[0]:
        return None
    second = _until(script, first[1], mark)
    if not second:
        return None
    at = second[1]
    flags = re.compile(r"(?:g|p|i|I|[1-9]\d{0,3})*" if verb == "s" else "").match(script, at)
    return flags.end() if flags else None


def _until(script: str, at: int, mark: str) -> tuple[str, int] | None:
    """The text up to an unescaped mark, and the place behind it."""
    begin = at
    while at < len(script):
        if script[at] == "\\":
            at += 2
        elif script[at] == "\n":
            return None
        elif script[at] == mark:
            text = script[begin:at]
            # Whether a mark within [ … ] ends it is not the same for every sed.
            return (text, at + 1) if _brackets_closed(text) else None
        else:
            at += 1
    return None


def _brackets_closed(text: str) -> bool:
    return re.search(r"\[\]?[^\]]*$", re.sub(r"\\.|\[:\w+:\]", "", text)) is None


_KEY = r"[A-Za-z_]\w*"
_STEPS = rf"(?:\.{_KEY}|\[\d{{0,6}}\])*"
_PATH = rf"\.(?:(?:{_KEY}|\[\d{{0,6}}\]){_STEPS})?"
_LITERAL = r'(?:-?\d{1,15}(?:\.\d{1,15})?|"[\w ./:,@%+-]*"|true|false|null)'
_CONDITION = rf"{_PATH}(?:\s*(?:==|!=|<=|>=|<|>)\s*{_LITERAL})?"
_PAIR = rf"{_KEY}(?:\s*:\s*{_PATH})?"
_JQ_STEP = (
    rf"(?:{_PATH}|select\(\s*{_CONDITION}(?:\s+(?:and|or)\s+{_CONDITION})*\s*\)"
    rf"|\{{\s*{_PAIR}(?:\s*,\s*{_PAIR})*\s*\}}|\[\s*{_PATH}(?:\s*,\s*{_PATH})*\s*\]"
    r"|length|keys|type|tostring|ascii_downcase|@tsv|@csv)"
)
_JQ_FILTER = re.compile(rf"\s*{_JQ_STEP}(?:\s*\|\s*{_JQ_STEP})*\s*")


def jq_filter(text: str) -> bool:
    """Is it a chain of paths, select, {…}, […] and a few functions? They see one value each."""
    return _JQ_FILTER.fullmatch(text) is not None
