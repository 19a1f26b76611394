"""Patterns of objects, `s3://BUCKET/2026/*.gz`, as a shell has them for files (POSIX 2.13).

`*`, `?` and `[…]` match within one part of the key, between slashes, and never a leading dot.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from punchlib.errors import UsageError

S3 = "s3://"
_SPECIAL = "*?["


@dataclass(frozen=True)
class ObjectPattern:
    """A word that stands for objects.

    Attributes:
        text: as it was written.
        bucket: which holds no pattern.
        prefix: what each key begins with.
        parts: the patterns between the key's slashes, in `fnmatch`'s form.
    """

    text: str
    bucket: str
    prefix: str
    parts: tuple[str, ...]

    @classmethod
    def of(cls, word: Sequence[tuple[str, bool]]) -> ObjectPattern:
        """Reads a word.

        Args:
            word: its pieces, each with whether quotes protect it.

        Raises:
            UsageError: the bucket is a pattern.
        """
        text = "".join(piece for piece, _ in word)
        pattern = "".join(_quoted(piece) if quoted else piece for piece, quoted in word)
        bucket, _, key = pattern.removeprefix(S3).partition("/")
        if not bucket or set(bucket) & set(_SPECIAL):
            raise UsageError(f"{text} is not {S3}BUCKET/PATTERN", next_step="name the bucket")
        prefix = _literal(word).removeprefix(S3).partition("/")[2]
        return cls(text, bucket, prefix, tuple(key.split("/")))

    def matches(self, key: str) -> bool:
        """Is it an object of this pattern?"""
        parts = key.split("/")
        return len(parts) == len(self.parts) and all(map(_matches, parts, self.parts))

    def choose(self, keys: Iterable[str]) -> list[str]:
        """Those of some keys that match, as words, in the order of their bytes.

        Raises:
            UsageError: none does.
        """
        found = sorted((k for k in keys if self.matches(k)), key=str.encode)
        if not found:
            raise UsageError(f"{self.text}: there is no such object", next_step="look: aws s3 ls")
        return [f"{S3}{self.bucket}/{key}" for key in found]


def refused(pattern: ObjectPattern) -> list[str]:
    """Where no bucket can be asked.

    Raises:
        UsageError: always.
    """
    raise UsageError(f"{pattern.text}: no bucket can be asked here", next_step="name the objects")


def _matches(part: str, pattern: str) -> bool:
    hidden = part.startswith(".") and not pattern.startswith(".")
    return not hidden and fnmatch.fnmatchcase(part, pattern)


def _quoted(text: str) -> str:
    return "".join(f"[{c}]" if c in _SPECIAL else c for c in text)


def _literal(word: Sequence[tuple[str, bool]]) -> str:
    """What comes before the first pattern."""
    out = ""
    for piece, quoted in word:
        if not quoted and (special := re.search(r"[*?[]", piece)):
            return out + piece[: special.start()]
        out += piece
    return out
