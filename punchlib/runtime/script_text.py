"""What the text of a shell script says for certain. Built-in modules only, as in `state`."""

from __future__ import annotations

#: What may run a line again, or lines that are not there to be seen.
_REPEATING = frozenset(b"while until for select function eval trap exec alias".split())
_SOURCE = (b"source", b".")
_APART = bytes.maketrans(b";&|(){}`\"'$<>", b" " * 13)


def times_sourced(text: bytes, script: bytes) -> int | None:
    """How often this text will have sourced a script when it has come to its end, if at all.

    Args:
        text: of a shell script.
        script: the last part of the name of the other.

    Returns:
        None where that cannot be told: where a line may be run twice (loops, functions, traps),
        where something else is sourced, which may do it too, or where the name stands elsewhere.
    """
    found = 0
    for line in text.split(b"\n"):
        words = line.translate(_APART).split()
        if _REPEATING.intersection(words) or b"()" in line:
            return None
        if script in line or any(word in words for word in _SOURCE):
            named = len(words) > 1 and words[0] in _SOURCE and script in words[1]
            if not named or line.count(script) > 1 or line[:1].isspace():
                return None
            found += 1
    return found


def sourced(text: bytes) -> list[bytes]:
    """The names of the scripts that a line of this text begins by sourcing.

    Args:
        text: of a shell script.
    """
    lines = (line.translate(_APART).split() for line in text.split(b"\n"))
    return [words[1] for words in lines if len(words) > 1 and words[0] in _SOURCE]
