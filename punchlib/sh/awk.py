"""awk programs: which of them treat each record by itself.

What awk keeps from record to record are variables, arrays, its counters (NR), open files and the
stream of random numbers. A program in which none of these occurs cannot look beyond its record,
whatever it does: so the words that it may use are listed here, and its grammar is left to awk. A
few programs that do keep something, and of which the results can be joined, follow.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from punchlib.sh.forms import (
    EACH_LINE,
    REDUCE,
    Form,
    Gather,
    NotKnownError,
    Options,
    Reader,
    Split,
    one_file,
    options,
    rebuilt,
)

_TOKEN = re.compile(
    r"""(?P<space>[ \t]+)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<number>\d+(?:\.\d+)?)
    |(?P<string>"(?:[^"\\\n]|\\["\\/nt])*")
    |(?P<regex>/(?:[^/\\\[\]\n]|\\[^\n]|\[\^?\]?(?:[^\[\]/\\\n]|\[:\w+:\])*\])+/)
    |(?P<mark>&&|\|\||[!=<>+*%-]=|\+\+|--|[$(){};,!~=<>+*%?:-]|\n)""",
    re.VERBOSE,
)
#: Without a variable among them, assignments can only be to fields and to NF.
_NAMES = frozenset(
    ["print", "printf", "if", "else", "next", "NF", "length", "substr", "index", "int", "tolower",
     "toupper", "sub", "gsub", "sprintf"]
)  # fmt: skip
#: After these a / begins a regex, and elsewhere it divides.
_BEFORE_REGEX = frozenset(("", "(", ",", "~", "!", "&&", "||", ";", "{", "}", "\n"))

_VALUE = r'"(?:[\w ,:;|/=-]|\\t)*"'
#: BEGIN that sets the separators and no more.
_BEGIN = re.compile(rf"\s*BEGIN\s*\{{\s*(?:O?FS\s*=\s*{_VALUE}\s*(?:;\s*)?)+\}}\s*;?")
#: A loop over the fields: its variable is set in each record before it is used.
_LOOP = re.compile(
    r"(?P<test>[^{}]*)\{\s*for\s*\(\s*i\s*=\s*(?:\d|NF)\s*;\s*i\s*(?:<=?\s*NF(?:\s*-\s*\d)?|>=?\s*\d)\s*;"
    r"\s*i(?:\+\+|--)\s*\)(?P<body>[^{}]*)\}\s*"
)
_DISTINCT = re.compile(r"\s*!\s*[a-z]\w*\[\$\d{1,4}\]\+\+\s*")
_COUNT = re.compile(
    r"(?P<test>[^{};\n]*)\{\s*(?P<name>[a-z]\w*)\s*(?:\+\+|\+=\s*1)\s*;?\s*\}\s*;?\s*"
    r"END\s*\{\s*print\s+(?P=name)\s*\+\s*0\s*;?\s*\}\s*"
)
_COUNT_ALL = re.compile(r"\s*END\s*\{\s*print\s+NR\s*;?\s*\}\s*")
#: A string of awk with a newline at its end.
_WHOLE_LINE = re.compile(r'"(?:[^"\\]|\\.)*\\n"')
#: A worker has its input from stdin.
_ASKS_FOR_FILE = re.compile(r"\bFILENAME\b|\bARG(?:V|C|IND)\b")
#: What gives a program away -> why it runs in one piece.
_BEYOND = {
    r"\bNR\b|\bFNR\b": "NR counts from the first line",
    r"\+=": "a sum of fractions depends on the order of its parts",
    r"\bEND\b": "END comes after the last line",
    r"\bgetline\b": "getline reads the next line",
    r"\bsystem\b|\bprintf?\b[^;}]*[>|]": "it may run commands or write files",
}


@dataclass(frozen=True)
class Linewise:
    """A program that keeps nothing from record to record.

    Attributes:
        total: it gives at least one line for each.
        keeps_lines: all that it writes are whole lines.
    """

    total: bool
    keeps_lines: bool


def linewise(program: str) -> Linewise | None:
    """Reads a program; None where it may look beyond the record."""
    if begin := _BEGIN.match(program):
        program = program[begin.end() :]
    if loop := _LOOP.fullmatch(program):
        test, body = _tokens(loop["test"]), _tokens("{" + loop["body"] + "}", ("i",))
        if test is None or body is None or "{" in body[1:-1]:
            return None
        return Linewise(total=False, keeps_lines=_keeps_lines(body))
    tokens = _tokens(program)
    if not tokens:
        return None
    first = tokens[: tokens.index("}")] if "}" in tokens else tokens
    total = first[0] == "{" and "print" in first and not {"if", "next"} & set(tokens)
    return Linewise(total, _keeps_lines(tokens))


def _tokens(program: str, more: Sequence[str] = ()) -> list[str] | None:
    """Its words, or None where one of them is not listed."""
    found: list[str] = []
    at, braces, brackets = 0, 0, 0
    while at < len(program):
        token = _TOKEN.match(program, at)
        if not token:
            return None
        at, text = token.end(), token[0]
        if token["space"]:
            continue
        if token["name"] and text not in (*_NAMES, *more):
            return None
        if token["regex"] and (found[-1] if found else "") not in _BEFORE_REGEX:
            return None
        if not brackets and text == (">" if braces else ","):
            return None  # print into a file; a range of lines
        braces += (text == "{") - (text == "}")
        brackets += (text == "(") - (text == ")")
        found.append(text)
    return found


def _closing(tokens: Sequence[str], at: int) -> int:
    """Where the bracket at `at` is closed."""
    depth = 0
    for here in range(at, len(tokens)):
        depth += (tokens[here] == "(") - (tokens[here] == ")")
        if not depth:
            return here
    return len(tokens)


def _keeps_lines(tokens: Sequence[str]) -> bool:
    """Does each printf have a format, and that a newline at its end?"""
    for at, token in enumerate(tokens):
        if token == "printf":
            bracket = tokens[at + 1 : at + 2] == ["("]
            form = tokens[at + 1 + bracket : at + 2 + bracket]
            # Two strings side by side are one; so is what stands in brackets and what follows.
            follows = tokens[at + 2 + bracket : at + 3 + bracket]
            behind = tokens[_closing(tokens, at + 1) + 1 :][:1] if bracket else []
            ends = not follows or follows[0] in (",", ";", "}", ")", "\n")
            if not form or not _WHOLE_LINE.fullmatch(form[0]) or not ends:
                return False
            if behind and behind[0] not in (";", "}", "\n"):
                return False
    return True


def _awk(words: Sequence[str]) -> Form:
    found = options(words, "", "Fv", permutes=False)
    if not found.operands:
        raise NotKnownError("awk without a program")
    program, *rest = found.operands
    if any("=" in o for o in rest):
        raise NotKnownError("awk with NAME=value")
    if any(not re.fullmatch(r"[\w ,:;|/=-]|\\t", mark) for mark in found.values("F")):
        raise NotKnownError("awk -F with that separator")
    if any(not re.fullmatch(r"OFS=(?:[\w ,:;|/=-]|\\t)*", value) for value in found.values("v")):
        raise NotKnownError("awk -v with that variable")
    files = one_file(words, rest)
    return _form(found, program, files)


def _form(found: Options, program: str, files: tuple[str, ...]) -> Form:
    words = rebuilt("awk", found, (program,))
    if _DISTINCT.fullmatch(program):
        return Form(words, Split(Gather(words)), "once more over what is left", files)
    counts = _COUNT.fullmatch(program)
    if _COUNT_ALL.fullmatch(program) or (counts and _tokens(counts["test"]) is not None):
        split = Split(Gather((REDUCE, "sum"), merges=True))
        return Form(words, split, "its counts are added up", files)
    lines = linewise(program)
    if lines is None:
        if files and _ASKS_FOR_FILE.search(program):
            raise NotKnownError("awk that asks for its file's name")
        reasons = (why for sign, why in _BEYOND.items() if re.search(sign, program))
        why = next(reasons, "this awk program may look beyond the line")
        return Form(words, None, why, files)
    split = Split(total=lines.total, keeps_lines=lines.keeps_lines)
    return Form(words, split, EACH_LINE, files)


AWK: dict[str, Reader] = {"awk": _awk}
