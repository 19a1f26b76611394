"""The files that the pipelines of `sh_pipelines` read."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.support.texts import english

_FIRST = ("Ken", "Dennis", "Brian", "Doug", "Joe", "Lorinda", "Bob", "Rob", "Mike", "Steve")
_LAST = ("Thompson", "Ritchie", "Kernighan", "McIlroy", "Ossanna", "Cherry", "Morris", "Pike")
_WORK = ("pipes", "grep", "chess", "roff", "awk", "diff", "spell", "cron", "sed", "tar")


def write_files(folder: Path) -> dict[str, str]:
    """Writes them; the variables that name them."""
    dice = random.Random(7)
    text = english(20_000, seed=3)
    log = [
        f"host{dice.randint(1, 9)} GET /{dice.choice('abc')} {dice.choice((200, 200, 404, 503))}"
        f" {dice.randint(1, 400)}\n"
        for _ in range(600)
    ]
    weather = [
        f"{dice.randint(20_000, 20_006):06}2025{month:02}{dice.randint(1, 28):02}"
        f"{'+9999' if dice.random() < 0.1 else f'{dice.randint(-300, 400):+05}'}"
        f"{dice.choice('012459')}\n"
        for month in range(1, 13)
        for _ in range(40)
    ]
    bus = [
        f"2026-03-{dice.randint(1, 9):02}T{dice.randint(5, 23):02}:{dice.randint(0, 59):02}"
        f",{dice.choice(('2', '14', '224', 'X95'))},{dice.randint(1000, 1040)}"
        f",{dice.randint(0, 20)}\n"
        for _ in range(500)
    ]
    people = [
        f"{dice.choice(_FIRST)} {dice.choice(_LAST)}:{dice.randint(1965, 1989)}"
        f":/usr/{dice.choice(('src', 'bin', 'ken'))}/{dice.choice(_WORK)}.c"
        f":{dice.choice(_WORK)} {dice.choice(('for', 'on'))} the PDP-{dice.choice((7, 11))}\n"
        for _ in range(200)
    ]
    events = [
        json.dumps(
            {
                "kind": dice.choice(("click", "view", "buy")),
                "user": {"id": dice.randint(1, 30)},
                "price": dice.choice((5, 9.99, 100)),
                "tags": dice.choices("xyz", k=2),
            }
        )
        + "\n"
        for _ in range(300)
    ]
    words = sorted({w for w in text.replace(b"\n", b" ").split() if dice.random() < 0.7})
    contents = {
        "IN": text + b"caf\xc3\xa9 \xff\xfe -- x\r\n\n\n",
        "LOG": "".join(log).encode(),
        "DICT": b"".join(w + b"\n" for w in words),
        "OPEN": b"b a\na b\nb a\nno newline",
        "EMPTY": b"",
        "WEATHER": "".join(weather).encode(),
        "BUS": "".join(bus).encode(),
        "PEOPLE": "".join(people).encode(),
        "EVENTS": "".join(events).encode(),
    }
    names = {}
    for name, content in contents.items():
        (folder / name.lower()).write_bytes(content)
        names[name] = str(folder / name.lower())
    return names
