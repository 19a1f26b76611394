"""Texts to sort and count: words with a natural skew, the same for the same seed."""

from __future__ import annotations

import random

_SYLLABLES = (
    "ka",
    "lo",
    "mi",
    "ren",
    "tu",
    "sha",
    "ver",
    "an",
    "del",
    "os",
    "pri",
    "et",
    "qua",
    "no",
    "fi",
    "gar",
    "hel",
    "ix",
    "jo",
    "um",
)


def english(size: int, *, seed: int) -> bytes:
    """About `size` bytes of lines of words; common words are common, some lines are empty."""
    dice = random.Random(seed)
    words = ["".join(dice.choices(_SYLLABLES, k=dice.randint(1, 4))) for _ in range(4000)]
    words = [w.capitalize() if dice.random() < 0.1 else w for w in words]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    stream = iter(dice.choices(words, weights, k=size // 4 + 10))
    lines, length = [], 0
    while length < size:
        line = " ".join(next(stream) for _ in range(dice.choice((0, 4, 8, 12, 16))))
        lines.append(line)
        length += len(line) + 1
    return ("\n".join(lines) + "\n").encode()
