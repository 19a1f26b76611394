"""Commands that unpack: compressed inputs are one piece each, since nothing tells where to cut.

gzip (RFC 1952, 2.2), bzip2, xz and zstd (RFC 8878, 3) say that a concatenation of their files
unpacks to the concatenation of what is in them.
"""

from __future__ import annotations

from collections.abc import Sequence

from punchlib.sh.forms import NotKnownError, options

_ALWAYS = {"zcat": "gzip", "bzcat": "bzip2", "xzcat": "xz", "zstdcat": "zstd"}
_TO_STDOUT = {"gunzip": "gzip", "bunzip2": "bzip2", "unxz": "xz", "unzstd": "zstd"}
_BOTH = frozenset(("gzip", "bzip2", "xz", "zstd"))


def unpacker(words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Does a command unpack to stdout?

    Args:
        words: its name and arguments.

    Returns:
        The command that does it from stdin, and the files that it names; None when it does not.
    """
    longs = {"--decompress": "d", "--stdout": "c", "--to-stdout": "c", "--quiet": "q"}
    try:
        found = options(words, "dcq", longs=longs)
    except NotKnownError:
        return None
    name = words[0]
    program = _ALWAYS.get(name) or _TO_STDOUT.get(name) or (name in _BOTH and name)
    out = name in _ALWAYS or found.has("c")
    if not program or not out or (name in _BOTH and not found.has("d")):
        return None
    if "-" in found.operands:
        return None if len(found.operands) > 1 else ((program, "-dc"), ())
    return (program, "-dc"), found.operands
