"""The table of commands: which forms may run on pieces of their input, and how these are joined.

Written from POSIX.1-2017 (XCU 4) and the manuals of GNU coreutils 9, grep 3, sed 4, gawk 5,
findutils 4, glibc's iconv and jq 1. Each form is proved by tests/unit/sh/test_commands_proof.py,
with the real command, drawn inputs and drawn cuts. What is not here runs in one piece, which is
always right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from punchlib.sh.awk import AWK
from punchlib.sh.filters import FILTERS
from punchlib.sh.forms import Form, NotKnownError, Reader
from punchlib.sh.joined import JOINED

_TABLE: dict[str, Reader] = {**FILTERS, **AWK, **JOINED}

_NUMBERS = "it counts lines from the first"
_WRITES = "it writes files"
_CHECKSUM = "a checksum is of all bytes"
_SOURCE = "it reads no input"
_OTHER = "it compares with another input"
_PROGRAM = "its program is not read"
_COMPRESSED = "one compressed stream cannot be cut"
#: What runs in one piece -> why. A command, or a form as a reader of the table names it.
_WHOLE = {
    "cat -n": _NUMBERS,
    "nl": _NUMBERS,
    "grep -n": _NUMBERS,
    "grep -b": "it counts bytes from the first",
    "grep -A": "lines around a match may be beyond the cut",
    "grep -B": "lines around a match may be beyond the cut",
    "grep -C": "lines around a match may be beyond the cut",
    "grep -q": "it has no output, only a status",
    "grep -f": "its patterns are in a file, which workers do not have",
    "head -c": "bytes are counted over any cut",
    "tail -c": "bytes are counted over any cut",
    "head -n -N": "which lines are the last N, only the end tells",
    "tail -n +N": _NUMBERS,
    "tail -f": "it waits for more",
    "sort -c": "one line out of order is found between neighbours",
    "sort -C": "one line out of order is found between neighbours",
    "sort -R": "its order is drawn anew in each run",
    "sort -o": _WRITES,
    "uniq -D": "all lines of a group are printed, which may be cut",
    "uniq --group": "all lines of a group are printed, which may be cut",
    "xargs": "it puts as many arguments on a line as there is room for",
    "xargs -0": "its arguments are not lines",
    "xargs -P": "its runs end in any order",
    "xargs without -n1 or -I": "it puts several arguments into one run, over any cut",
    "xargs without -r": "without -r it runs once even for nothing: say xargs -r",
    "awk -f": _PROGRAM,
    "jq -s": "it makes one array of all texts",
    "jq -n": "it reads its input when the filter says so",
    "fmt": "paragraphs may cross the cut",
    "pr": "pages may cross the cut",
    "column": "the widest of all lines decides how wide columns are",
    "shuf": "its order is drawn anew in each run",
    "split": _WRITES,
    "csplit": _WRITES,
    "tee": _WRITES,
    "paste": "it puts lines beside each other, over any cut",
    "comm": _OTHER,
    "join": _OTHER,
    "diff": _OTHER,
    "cmp": _OTHER,
    "tsort": "each pair may order all others",
    "sum": _CHECKSUM,
    "cksum": _CHECKSUM,
    "md5sum": _CHECKSUM,
    "sha1sum": _CHECKSUM,
    "sha256sum": _CHECKSUM,
    "base64": "its lines are not those of the input",
    "od": "it counts bytes from the first",
    "xxd": "it counts bytes from the first",
    "hexdump": "it counts bytes from the first",
    "gzip": _COMPRESSED,
    "gunzip": _COMPRESSED,
    "zcat": _COMPRESSED,
    "bzip2": _COMPRESSED,
    "xz": _COMPRESSED,
    "xzcat": _COMPRESSED,
    "zstd": _COMPRESSED,
    "bc": "it keeps variables from line to line",
    "dc": "it keeps its stack from line to line",
    "perl": _PROGRAM,
    "python3": _PROGRAM,
    "ruby": _PROGRAM,
    "sh": _PROGRAM,
    "bash": _PROGRAM,
    "seq": _SOURCE,
    "printf": _SOURCE,
    "echo": _SOURCE,
    "yes": _SOURCE,
}


def form_of(words: Sequence[str], more: Mapping[tuple[str, ...], Form] | None = None) -> Form:
    """What the table knows of a command.

    Args:
        words: its name and arguments, expanded.
        more: the user's own forms, by their words. The table comes first.
    """
    form = _read(tuple(words))
    return form if form.split else (more or {}).get(form.words, form)


def _read(words: tuple[str, ...]) -> Form:
    unknown = words[0]
    if reader := _TABLE.get(words[0]):
        try:
            return reader(words)
        except NotKnownError as error:
            unknown = str(error)
    if reason := _WHOLE.get(unknown):
        return Form(words, None, f"{unknown}: {reason}", known=False)
    return Form(words, None, f"{unknown} is not in the table", known=False)
