"""Commands that treat each line, or each byte, by itself: their outputs follow one another."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from functools import lru_cache

from punchlib.sh.forms import (
    EACH_LINE,
    REDUCE,
    Form,
    Gather,
    NotKnownError,
    Options,
    Reader,
    Split,
    is_number,
    one_file,
    options,
    rebuilt,
    refusing,
)
from punchlib.sh.programs import jq_filter, sed_program


def _cat(words: Sequence[str]) -> Form:
    found = options(words, "u")
    if found.operands.count("-") > 1:
        raise NotKnownError("cat - -")
    files = () if found.operands in ((), ("-",)) else found.operands
    return Form(("cat",), Split(), "passes lines on", files)


def _tr(words: Sequence[str]) -> Form:
    longs = {"--delete": "d", "--squeeze-repeats": "s", "--complement": "c", "--truncate-set1": "t"}
    found = options(words, "cCdst", longs=longs, permutes=False)
    words = rebuilt("tr", found, found.operands)
    # What becomes of a newline, tr itself says.
    made = _run_tr(words[1:], b"\n\n")
    if not made and found.has("s"):
        return Form(words, None, "it deletes newlines and squeezes, across any cut")
    keeps = made[:1] == b"\n"
    if len(made) == 1:
        split = Split(keeps_lines=keeps, primed=True, total=keeps)
        return Form(words, split, "squeezes across the cut: each piece knows that a newline came")
    split = Split(keeps_lines=keeps, total=keeps)
    return Form(words, split, "each byte by itself" + ("" if keeps else "; leaves no lines"))


@lru_cache(maxsize=256)
def _run_tr(arguments: tuple[str, ...], data: bytes) -> bytes:
    """What this machine's tr makes of it.

    Raises:
        NotKnownError: it refuses the arguments.
    """
    done = subprocess.run(
        ["tr", *arguments],
        input=data,
        capture_output=True,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        check=False,
    )
    if done.returncode:
        raise NotKnownError(f"tr {' '.join(arguments)}")
    return done.stdout


def _cut(words: Sequence[str]) -> Form:
    longs = {"--bytes=": "b", "--characters=": "c", "--fields=": "f", "--delimiter=": "d"}
    longs |= {"--only-delimited": "s", "--complement": "-", "--output-delimiter=": "o"}
    found = options(words, "sn", "bcfd", longs)
    if any(len(d.encode()) != 1 or d == "\n" for d in found.values("d")):
        raise NotKnownError("cut -d with that delimiter")
    if any("\n" in o for o in found.values("o")):
        raise NotKnownError("cut --output-delimiter with a newline")
    files = one_file(words, found.operands)
    names = {"-": "--complement", "o": "--output-delimiter="}
    rest = Options(tuple(g for g in found.given if g[0] not in names), ())
    more = [names[letter] + (value or "") for letter, value in found.given if letter in names]
    split = Split(total=not found.has("s"))
    return Form((*rebuilt("cut", rest), *more), split, EACH_LINE, files)


def _linewise(flags: str = "", valued: str = "", split: Split | None = None) -> Reader:
    """A command that treats each line by itself; its options' values are numbers."""

    def reader(words: Sequence[str]) -> Form:
        found = options(words, flags, valued)
        if any(not is_number(value) for letter, value in found.given if letter in valued):
            raise NotKnownError(f"{words[0]} with that value")
        files = one_file(words, found.operands)
        return Form(rebuilt(words[0], found), split or Split(), EACH_LINE, files)

    return reader


_GREP_LONGS = {
    "--text": "a",
    "--invert-match": "v",
    "--ignore-case": "i",
    "--only-matching": "o",
    "--extended-regexp": "E",
    "--fixed-strings": "F",
    "--word-regexp": "w",
    "--line-regexp": "x",
    "--count": "c",
    "--regexp=": "e",
    "--max-count=": "m",
}


def _grep(words: Sequence[str]) -> Form:
    found = options(words, "aviyoEFGwxchs", "em", _GREP_LONGS)
    operands = list(found.operands)
    pattern = [] if found.has("e") else operands[:1]
    if not pattern and not found.has("e"):
        raise NotKnownError("grep without a pattern")
    files = one_file(words, operands[len(pattern) :])
    words = rebuilt(words[0], found, pattern)
    text_only = not found.has("a")
    most = found.values("m")
    if most:
        if len(most) > 1 or not is_number(most[0]) or found.has("co"):
            raise NotKnownError("grep -m with -c or -o, or with that value,")
        gather = Gather(("head", "-n", most[0]))
        return Form(words, Split(gather, text_only=text_only), "the first of the pieces'", files)
    if found.has("c"):
        gather = Gather((REDUCE, "sum"), merges=True)
        return Form(words, Split(gather, text_only=text_only), "its counts are added up", files)
    return Form(words, Split(total=False, text_only=text_only), EACH_LINE, files)


def _sed(words: Sequence[str]) -> Form:
    longs = {"--quiet": "n", "--silent": "n", "--regexp-extended": "E", "--expression=": "e"}
    found = options(words, "nEr", "e", longs)
    operands = list(found.operands)
    scripts = found.values("e") or operands[:1]
    rest = operands if found.has("e") else operands[1:]
    if not scripts:
        raise NotKnownError("sed without a script")
    files = one_file(words, rest)
    words = rebuilt("sed", found, () if found.has("e") else scripts)
    program = sed_program("\n".join(scripts))
    if program is None:
        return Form(words, None, "this sed script may look beyond the line", files)
    return Form(words, Split(total=not (program.deletes or found.has("n"))), EACH_LINE, files)


#: Sets of one byte for a character, and UTF-8: no state, and a newline is a newline in each.
_STATELESS = re.compile(
    r"utf-?8|(?:us-)?ascii|iso[-_]?8859-(?:[1-9]|1[013-6])|latin1|cp125[0-46-7]|windows-125[0-46-7]"
    r"|koi8-[ru]|cp437|cp850|cp866",
    re.IGNORECASE,
)


def _iconv(words: Sequence[str]) -> Form:
    found = options(words, "", "ft", {"--from-code=": "f", "--to-code=": "t"})
    if not (found.has("f") and found.has("t")):
        raise NotKnownError("iconv without -f and -t")
    if any(not _STATELESS.fullmatch(name or "") for _, name in found.given):
        raise NotKnownError("iconv with that set")
    files = one_file(words, found.operands)
    return Form(rebuilt("iconv", found), Split(), "each character by itself", files)


def _jq(words: Sequence[str]) -> Form:
    longs = {"--compact-output": "c", "--raw-output": "r", "--sort-keys": "S"}
    found = options(words, "crS", longs=longs)
    if not found.operands or not jq_filter(found.operands[0]):
        raise NotKnownError("jq with that filter")
    if "-" in found.operands:
        raise NotKnownError("jq of a file called -")
    files = one_file(words, found.operands[1:])
    # A text that spans lines is open at the end of its piece: jq fails there.
    guard = refusing(
        r"^\xef\xbb\xbf",
        "a line begins with a byte order mark, which jq knows at the beginning only",
    )
    split = Split(total=False, text_only=True, guard=guard)
    words = rebuilt("jq", found, found.operands[:1])
    return Form(words, split, "each line is JSON by itself, or it fails", files)


def _xargs(words: Sequence[str]) -> Form:
    at = 1
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] in ("-n", "-I", "-d") else 1
    longs = {"--no-run-if-empty": "r", "--max-args=": "n", "--delimiter=": "d"}
    found = options(words[:at], "r", "nId", longs)
    run = words[at:] or ("echo",)
    if len(found.values("n") + found.values("I")) != 1 or found.values("n") not in ([], ["1"]):
        raise NotKnownError("xargs without -n1 or -I")
    mark = "".join(found.values("I"))
    if not found.has("rI"):
        raise NotKnownError("xargs without -r")
    if found.values("d") not in ([], ["\\n"]) or (found.has("I") and not mark):
        raise NotKnownError("xargs with that value")
    if not _looks_at_its_argument(run, mark):
        raise NotKnownError(f"xargs {run[0]}")
    guard = refusing(r"\\$", "a backslash at the end of a line makes xargs read on in the next")
    split = Split(total=False, guard=() if found.has("d") else guard)
    return Form((*rebuilt("xargs", found), *run), split, "a run for each argument")


_PLAIN = re.compile(r"[\w .,:;/=@%+-]*")
_FORMAT = re.compile(r"(?!-)(?:[\w .,:;/=@+-]|%s|\\t)*\\n")


def _looks_at_its_argument(run: Sequence[str], mark: str) -> bool:
    """Does it write lines that depend on its arguments and on nothing else?

    Args:
        run: what xargs runs.
        mark: what stands for the argument; "" where it comes last.
    """
    name, given = run[0], list(run[1:])
    if mark and mark in name:
        return False
    if name in ("basename", "dirname"):
        return given == ([mark] if mark else [])
    if not mark:
        mark = "{}"
        if any(mark in word for word in given):
            return False
        given.append(mark)
    if name == "printf":
        return bool(_FORMAT.fullmatch(given[0])) and mark not in given[0]
    # The first word may be an option: where the argument begins it, it must be alone.
    options_first = given[:1] != [] and (
        given[0].startswith("-") or (given[0].startswith(mark) and len(given) > 1)
    )
    plain = all(_PLAIN.fullmatch(word.replace(mark, "")) for word in given)
    return name == "echo" and plain and not options_first


_COL = refusing(
    r"[\x0b\x0e\x0f\x1b]", "a control character moves col to another line or set of characters"
)

FILTERS: dict[str, Reader] = {
    "cat": _cat,
    "col": _linewise("bx", split=Split(guard=_COL)),
    "cut": _cut,
    "egrep": _grep,
    "expand": _linewise(valued="t"),
    "fgrep": _grep,
    "fold": _linewise("bs", "w"),
    "grep": _grep,
    "iconv": _iconv,
    "jq": _jq,
    "rev": _linewise(split=Split(text_only=True)),
    "sed": _sed,
    "tr": _tr,
    "unexpand": _linewise("a", "t"),
    "xargs": _xargs,
}
