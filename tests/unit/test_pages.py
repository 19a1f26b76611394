"""What the pages name is there: files, links, targets of make, variables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for pattern in ("*.md", "docs/*.md", "services/*/README.md")
    for page in sorted(ROOT.glob(pattern))
]
# Not runtime/ and aws/ alone: so a script calls what is laid out for it.
_FOLDERS = "bench|deploy|docs|examples|punchlib|services|tests|jobs|node|core|net|local"


def of_page(page: Path) -> str:
    return str(page.relative_to(ROOT))


def exists(name: str) -> bool:
    """Whether it is a path of the project, punchlib or a test, or a pattern that finds some."""
    tops = (ROOT, ROOT / "punchlib", ROOT / "tests/loopback")
    return any(any(top.glob(name.rstrip("/") + end)) for top in tops for end in ("", ".py"))


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    named = re.findall(rf"`((?:{_FOLDERS})/[\w./*-]+)`", text)
    named += re.findall(r"\bdocs/[\w-]+\.md\b", text)
    named += re.findall(r"python -m ((?:bench|services|tests|punchlib)[\w.]*\w)", text)
    paths = [
        name if "/" in name else f"{name.replace('.', '/')}.py"
        for name in named
        if "…" not in name and "NAME" not in name
    ]
    assert [path for path in paths if not exists(path)] == []


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    named = re.findall(r"`make (?:-s )?([a-z][a-z0-9-]*)", text)
    for block in [
        *f"\n{text}".split("\n```")[1::2],
        *re.findall(r"(?:^    .*\n)+", text, re.MULTILINE),
    ]:
        named += re.findall(r"^\s*make (?:-s )?([a-z][a-z0-9-]*)", block, re.MULTILINE)
    assert set(named) - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_variables_that_are_named_are_read_somewhere(page: Path) -> None:
    code = "".join(
        path.read_text()
        for folder in ("punchlib", "services", "tests", "bench", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in (".py", ".sh", ".yaml", "")
    )
    code += "".join(
        (ROOT / name).read_text() for name in ("docker-compose.yml", ".env", "Makefile")
    )
    named = set(re.findall(r"`((?:PUNCH|PASH)_[A-Z_]+[A-Z])", page.read_text()))
    assert {name for name in named if name not in code} == set()
