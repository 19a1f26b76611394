"""The table of commands: which forms may run on pieces of their input, and how these are joined.

Written from POSIX.1-2017 (XCU 4) and the manuals of GNU coreutils 9, grep 3, sed 4 and gawk 5.
Each form is proved by tests/unit/sh/test_commands_proof.py, with the real command, drawn inputs and
drawn cuts. What is not here runs in one piece, which is always right.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from functools import lru_cache

from punchlib.sh.forms import Form, Gather, NotKnownError, Split, options, rebuilt
from punchlib.sh.programs import awk_distinct, awk_linewise, sed_program

#: Our tool that adds up (punchlib/runtime/sh_reduce.py).
REDUCE = "runtime/sh-reduce"
_EACH_LINE = "each line by itself"
_NUMBER = re.compile(r"\d{1,12}")


def form_of(words: Sequence[str]) -> Form:
    """What the table knows of a command.

    Args:
        words: its name and arguments, expanded.
    """
    reader = _TABLE.get(words[0])
    if reader is None:
        return Form(tuple(words), None, f"{words[0]} is not in the table", known=False)
    try:
        return reader(words)
    except NotKnownError as unknown:
        return Form(tuple(words), None, f"{unknown} is not in the table", known=False)


def _one_file(words: Sequence[str], operands: Sequence[str]) -> tuple[str, ...]:
    """The file that it reads; several are no concatenation where one has no newline at its end."""
    if len(operands) > 1:
        raise NotKnownError(f"{words[0]} with several files")
    if any(o.startswith("+") for o in operands):
        # A file's name, or what POSIX.1-2001 took away (`tail +2`, `sort +1`): systems differ.
        raise NotKnownError(f"{words[0]} {operands[0]}")
    return tuple(o for o in operands if o != "-")


def _cat(words: Sequence[str]) -> Form:
    found = options(words, "u")
    if found.operands.count("-") > 1:
        raise NotKnownError("cat - -")
    files = () if found.operands in ((), ("-",)) else found.operands
    return Form(("cat",), Split(), "passes lines on", files)


def _tr(words: Sequence[str]) -> Form:
    longs = {"--delete": "d", "--squeeze-repeats": "s", "--complement": "c", "--truncate-set1": "t"}
    found = options(words, "cCdst", longs=longs)
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
    found = options(words, "sn", "bcfd", {**longs, "--only-delimited": "s"})
    if any(len(d.encode()) != 1 or d == "\n" for d in found.values("d")):
        raise NotKnownError("cut -d with that delimiter")
    files = _one_file(words, found.operands)
    return Form(rebuilt("cut", found), Split(total=not found.has("s")), _EACH_LINE, files)


def _linewise(flags: str = "", valued: str = "", *, text_only: bool = False) -> _Reader:
    """A command that treats each line by itself, and gives at least one for each."""

    def reader(words: Sequence[str]) -> Form:
        found = options(words, flags, valued)
        if any(not _NUMBER.fullmatch(v or "") for o, v in found.given if o in valued):
            raise NotKnownError(f"{words[0]} with that value")
        files = _one_file(words, found.operands)
        return Form(rebuilt(words[0], found), Split(text_only=text_only), _EACH_LINE, files)

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
}


def _grep(words: Sequence[str]) -> Form:
    found = options(words, "aviyoEFGwxchs", "e", _GREP_LONGS)
    operands = list(found.operands)
    pattern = [] if found.has("e") else operands[:1]
    if not pattern and not found.has("e"):
        raise NotKnownError("grep without a pattern")
    files = _one_file(words, operands[len(pattern) :])
    words = rebuilt(words[0], found, pattern)
    text_only = not found.has("a")
    if found.has("c"):
        gather = Gather((REDUCE, "sum"), merges=True)
        return Form(words, Split(gather, text_only=text_only), "its counts are added up", files)
    return Form(words, Split(total=False, text_only=text_only), _EACH_LINE, files)


def _sed(words: Sequence[str]) -> Form:
    longs = {"--quiet": "n", "--silent": "n", "--regexp-extended": "E", "--expression=": "e"}
    found = options(words, "nEr", "e", longs)
    operands = list(found.operands)
    scripts = found.values("e") or operands[:1]
    rest = operands if found.has("e") else operands[1:]
    if not scripts:
        raise NotKnownError("sed without a script")
    files = _one_file(words, rest)
    words = rebuilt("sed", found, () if found.has("e") else scripts)
    program = sed_program("\n".join(scripts))
    if program is None:
        return Form(words, None, "this sed script may look beyond the line", files)
    return Form(words, Split(total=not (program.deletes or found.has("n"))), _EACH_LINE, files)


_SORT_LONGS = {
    "--reverse": "r",
    "--numeric-sort": "n",
    "--ignore-case": "f",
    "--unique": "u",
    "--stable": "s",
    "--ignore-leading-blanks": "b",
    "--dictionary-order": "d",
    "--human-numeric-sort": "h",
    "--version-sort": "V",
    "--month-sort": "M",
    "--key=": "k",
    "--field-separator=": "t",
}
_KEY = re.compile(r"\d+(?:\.\d+)?[bdfhnrMV]*(?:,\d+(?:\.\d+)?[bdfhnrMV]*)?")


def _sort(words: Sequence[str]) -> Form:
    found = options(words, "rnfusbdhVM", "kt", _SORT_LONGS)
    if not all(_KEY.fullmatch(key) for key in found.values("k")):
        raise NotKnownError("sort -k with that key")
    if any(len(mark.encode()) != 1 or mark == "\n" for mark in found.values("t")):
        raise NotKnownError("sort -t with that separator")
    files = _one_file(words, found.operands)
    words = rebuilt("sort", found)
    orders = "" if found.has("su") else "total"
    if orders and not found.has("nfbdhVMk"):
        orders = "lines reversed" if found.has("r") else "lines"
    gather = Gather(("sort", "-m", *words[1:]), merges=True)
    return Form(words, Split(gather), "sorted pieces are merged in the same order", files, orders)


def _uniq(words: Sequence[str]) -> Form:
    found = options(words, "ci", "fsw", {"--count": "c", "--ignore-case": "i"})
    if any(not _NUMBER.fullmatch(v) for o, v in found.given if v is not None):
        raise NotKnownError("uniq with that value")
    files = _one_file(words, found.operands)
    words = rebuilt("uniq", found)
    if found.has("c"):
        if len(found.given) > 1:
            raise NotKnownError("uniq -c with other options")
        gather = Gather((REDUCE, "adjacent"), merges=True)
        return Form(words, Split(gather), "counts of a line that was cut are added", files)
    return Form(words, Split(Gather(words)), "once more over the cuts", files)


def _wc(words: Sequence[str]) -> Form:
    found = options(words, "lwcm", longs={"--lines": "l", "--words": "w", "--bytes": "c"})
    if found.operands not in ((), ("-",)):
        raise NotKnownError("wc of a file, whose name it prints,")
    gather = Gather((REDUCE, "sum"), merges=True)
    return Form(rebuilt("wc", found), Split(gather), "its counts are added up")


def _first_or_last(words: Sequence[str]) -> Form:
    name = words[0]
    # POSIX.1-2001 took the form -N away, and every system has kept it.
    old = [f"-n{w[1:]}" if n == 1 and re.fullmatch(r"-\d+", w) else w for n, w in enumerate(words)]
    found = options(old, "q", "n", {"--lines=": "n"})
    counts = found.values("n") or ["10"]
    if not _NUMBER.fullmatch(counts[-1]):
        raise NotKnownError(f"{name} -n {counts[-1]}")
    files = _one_file(words, found.operands)
    words = (name, "-n", counts[-1])
    return Form(words, Split(Gather(words)), f"the {name} of the pieces' {name}s", files)


def _awk(words: Sequence[str]) -> Form:
    found = options(words, "", "F")
    if not found.operands:
        raise NotKnownError("awk without a program")
    program, *rest = found.operands
    if any("=" in o for o in rest):
        raise NotKnownError("awk with NAME=value")
    if any(not re.fullmatch(r"[\w ,:;|/=-]|\\t", mark) for mark in found.values("F")):
        raise NotKnownError("awk -F with that separator")
    files = _one_file(words, rest)
    words = rebuilt("awk", found, (program,))
    if awk_distinct(program):
        return Form(words, Split(Gather(words)), "once more over what is left", files)
    linewise = awk_linewise(program)
    if linewise is None:
        return Form(words, None, "this awk program may look beyond the line", files)
    return Form(words, Split(total=linewise["test"] is None), _EACH_LINE, files)


_Reader = Callable[[Sequence[str]], Form]
_TABLE: dict[str, _Reader] = {
    "awk": _awk,
    "cat": _cat,
    "cut": _cut,
    "egrep": _grep,
    "expand": _linewise(valued="t"),
    "fgrep": _grep,
    "fold": _linewise("bs", "w"),
    "grep": _grep,
    "head": _first_or_last,
    "rev": _linewise(text_only=True),
    "sed": _sed,
    "sort": _sort,
    "tail": _first_or_last,
    "tr": _tr,
    "uniq": _uniq,
    "wc": _wc,
}
