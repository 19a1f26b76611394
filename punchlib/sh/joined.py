"""Commands that run on each piece, and whose outputs are then joined by another command."""

from __future__ import annotations

import re
from collections.abc import Sequence

from punchlib.sh.forms import (
    REDUCE,
    Form,
    Gather,
    NotKnownError,
    Reader,
    Split,
    is_number,
    one_file,
    options,
    rebuilt,
)

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
    files = one_file(words, found.operands)
    words = rebuilt("sort", found)
    orders = "" if found.has("su") else "total"
    if orders and not found.has("nfbdhVMk"):
        orders = "lines reversed" if found.has("r") else "lines"
    gather = Gather(("sort", "-m", *words[1:]), merges=True)
    return Form(words, Split(gather), "sorted pieces are merged in the same order", files, orders)


#: What takes from the output of `uniq -c` what `uniq -d` and `uniq -u` would write.
_OF_COUNTS = {
    "d": ("sed", "/^ *1 /d; s/^ *[0-9][0-9]* //"),
    "u": ("sed", "-n", "s/^ *1 //p"),
}


def _uniq(words: Sequence[str]) -> Form:
    longs = {"--count": "c", "--ignore-case": "i", "--repeated": "d", "--unique": "u"}
    found = options(words, "cidu", "fsw", longs)
    if any(not is_number(value) for _, value in found.given if value is not None):
        raise NotKnownError("uniq with that value")
    files = one_file(words, found.operands)
    words = rebuilt("uniq", found)
    if not found.has("cdu"):
        return Form(words, Split(Gather(words)), "once more over the cuts", files)
    if len(found.given) > 1:
        raise NotKnownError(f"uniq {words[1]} with other options")
    counts = Gather((REDUCE, "adjacent"), merges=True)
    if found.has("c"):
        return Form(words, Split(counts), "counts of a line that was cut are added", files)
    split = Split(counts, words=("uniq", "-c"), then=_OF_COUNTS[found.given[0][0]])
    return Form(words, split, "from counts: those of a line that was cut are added", files)


def _wc(words: Sequence[str]) -> Form:
    longs = {"--lines": "l", "--words": "w", "--bytes": "c", "--chars": "m"}
    found = options(words, "lwcmL", longs={**longs, "--max-line-length": "L"})
    if found.operands:
        raise NotKnownError("wc of a file, whose name it prints,")
    words = rebuilt("wc", found)
    if not found.has("L"):
        gather = Gather((REDUCE, "sum"), merges=True)
        return Form(words, Split(gather), "its counts are added up")
    if len(found.given) > 1:
        raise NotKnownError("wc -L with other counts")
    return Form(words, Split(Gather((REDUCE, "max"), merges=True)), "the longest of all pieces")


def _first_or_last(words: Sequence[str]) -> Form:
    name = words[0]
    # POSIX.1-2001 took the form -N away, and every system has kept it.
    old = [f"-n{w[1:]}" if n == 1 and re.fullmatch(r"-\d+", w) else w for n, w in enumerate(words)]
    found = options(old, "q", "n", {"--lines=": "n"})
    count = (found.values("n") or ["10"])[-1]
    if not is_number(count):
        sign = count[0] if is_number(count[1:]) else ""
        raise NotKnownError(f"{name} -n {sign + 'N' if sign else count}")
    files = one_file(words, found.operands)
    words = (name, "-n", count)
    return Form(words, Split(Gather(words)), f"the {name} of the pieces' {name}s", files)


def _tac(words: Sequence[str]) -> Form:
    # A line without a newline at the end of all stays where tac puts it: in front, glued to the
    # next. The same comes of the pieces, of which the last goes first.
    files = one_file(words, options(words, "").operands)
    return Form(
        ("tac",), Split(Gather((REDUCE, "tac"), merges=True)), "the last piece first", files
    )


JOINED: dict[str, Reader] = {
    "head": _first_or_last,
    "sort": _sort,
    "tac": _tac,
    "tail": _first_or_last,
    "uniq": _uniq,
    "wc": _wc,
}
