"""The files that the pipelines of `sh_pipelines` read."""

from __future__ import annotations

import random
from pathlib import Path

from tests.support.texts import english


def write_files(folder: Path) -> dict[str, str]:
    """Writes them; the variables that name them."""
    dice = random.Random(7)
    text = english(20_000, seed=3)
    log = [
        f"host{dice.randint(1, 9)} GET /{dice.choice('abc')} {dice.choice((200, 200, 404, 503))}"
        f" {dice.randint(1, 400)}\n"
        for _ in range(600)
    ]
    words = sorted({w for w in text.replace(b"\n", b" ").split() if dice.random() < 0.7})
    contents = {
        "IN": text + b"caf\xc3\xa9 \xff\xfe -- x\r\n\n\n",
        "LOG": "".join(log).encode(),
        "DICT": b"".join(w + b"\n" for w in words),
        "OPEN": b"b a\na b\nb a\nno newline",
        "EMPTY": b"",
    }
    names = {}
    for name, content in contents.items():
        (folder / name.lower()).write_bytes(content)
        names[name] = str(folder / name.lower())
    return names
