"""Which programs of sed and awk treat each line by itself: a short list, everything else is not."""

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
    """Reads a sed script of `s`, `y`, `d` and `p`, each for all lines or for those of a /regex/.

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
        elif verb != "p":
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


_FIELD = r"\$(?:\d{1,4}|NF)"
_PRINT = rf"\{{\s*print(?:\s*{_FIELD}(?:\s*,?\s*{_FIELD})*)?\s*;?\s*\}}"
_VALUE = r'(?:"[\w ./:,-]*"|\d{1,9})'
_COMPARE = r"(?:==|!=|<=|>=|<|>)"
_TEST = (
    rf"(?:NF|{_FIELD}|length(?:\(\$?0?\))?|length\({_FIELD}\))\s*{_COMPARE}\s*{_VALUE}"
    rf"|NF|/[\w .,:=@-]+/|{_FIELD}\s*!?~\s*/[\w .,:=@-]+/"
)
#: One test, one print, or a test and a print.
_AWK_LINEWISE = re.compile(rf"\s*(?:(?P<test>{_TEST})\s*(?:{_PRINT})?|{_PRINT})\s*")
_AWK_DISTINCT = re.compile(r"\s*!\s*[A-Za-z_]\w*\[\$0\]\+\+\s*")


def awk_linewise(program: str) -> re.Match[str] | None:
    """A program that treats each record by itself: fields and NF, no NR, END, arrays, getline.

    Returns:
        None where it is not on the list; `["test"]` is None where each line gives a line.
    """
    return _AWK_LINEWISE.fullmatch(program)


def awk_distinct(program: str) -> bool:
    """Is it `!seen[$0]++`: each line once, where it comes first?"""
    return _AWK_DISTINCT.fullmatch(program) is not None
