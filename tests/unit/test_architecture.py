"""docs/architecture.md against the tree: every module is named, the arrows are those checked."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text()


def named() -> list[str]:
    """The modules that the page's house names, as paths below punchlib."""
    house = PAGE.split("from the top floor to the ground:\n```\n")[1].split("\n```")[0]
    modules, folder = [], ""
    for line in house.splitlines():
        name, _what_it_is_for = line.split(maxsplit=1)
        if name.endswith("/"):
            folder = name
        else:
            modules.append((folder if line.startswith("  ") else "") + name)
    return modules


def test_every_module_is_named_once_and_every_name_is_a_module() -> None:
    tree = [
        str(path.relative_to(ROOT / "punchlib"))
        for path in (ROOT / "punchlib").rglob("*.py")
        if path.name != "__init__.py"
    ]
    assert sorted(named()) == sorted(tree)


def test_the_arrows_are_those_that_make_lint_checks() -> None:
    line = re.search(r"^cli → .*\.$", PAGE, re.MULTILINE)
    assert line is not None
    arrows = [step.split(", ") for step in line[0].rstrip(".").split(" → ")]
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = config["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert arrows == [layer.split(" | ") for layer in layers]


def test_the_house_is_drawn_in_the_order_of_its_arrows() -> None:
    line = re.search(r"^cli → .*\.$", PAGE, re.MULTILINE)
    assert line is not None
    floors = re.split(r" → |, ", line[0].rstrip("."))
    drawn = list(dict.fromkeys(re.split(r"[/.]", module)[0] for module in named()))
    assert drawn == floors
