"""The page of a run in a browser: quiet, alone, as wide as the screen, and something to see.

Chromium is one of Debian's packages (tests/prepare.sh). Where it is not to be had these tests are
skipped, but not in CI.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchlib.runs import run_folder
from punchlib.runs.critical_path import Kind, path_of
from punchlib.runs.report_page import render
from punchlib.runs.story import tell
from tests.support.browser import Browser, Page, program
from tests.support.jobgen import sort_job
from tests.support.recorded_runs import load, record
from tests.support.tiers import quick

#: Elements wider than the page whose own figure does not scroll.
_TOO_WIDE = """
    [...document.querySelectorAll('body *')].filter(e => {
        const r = e.getBoundingClientRect();
        return r.width && (r.right > WIDTH + 1 || r.left < -1) && !e.closest('.scroll, pre')
    }).map(e => e.tagName + ' ' + e.getAttribute('class')).join('; ')
"""


def too_wide(page: Page, width: int, *, paper: bool = False) -> str:
    """What sticks out of a page that is so many CSS pixels wide; on paper nothing scrolls."""
    look = _TOO_WIDE.replace("WIDTH", str(width))
    return str(page.evaluate(look.replace("'.scroll, pre'", "'none'") if paper else look))


#: Text that is less than 4.5 times as bright, or dark, as what is behind it (WCAG 2, 1.4.3).
_TOO_FAINT = """(() => {
    const bright = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => v / 255)
        .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b };
    const behind = e => { for (; e; e = e.parentElement) {
        const c = getComputedStyle(e).backgroundColor;
        if (c !== 'rgba(0, 0, 0, 0)') return c } return 'rgb(255, 255, 255)' };
    const found = new Set();
    for (const e of document.querySelectorAll('body *')) {
        if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
        if (['TITLE', 'DESC', 'title', 'desc', 'STYLE'].includes(e.tagName)) continue;
        const style = getComputedStyle(e), text = e.closest('svg') ? style.fill : style.color;
        const pair = [bright(text), bright(behind(e))].sort((a, b) => b - a);
        const ratio = (pair[0] + .05) / (pair[1] + .05);
        if (ratio < 4.5) found.add(e.tagName + ' ' + e.getAttribute('class') + ' ' + ratio);
    }
    return [...found].join('; ')
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not program():
        skipped = pytest.fail if os.environ.get("CI") else pytest.skip
        skipped("no Chromium: apt-get install chromium-headless-shell")
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {}
    for name in ("sort", "wide", "broken"):
        told, run = load(name)
        made[name] = folder / f"{name}.html"
        made[name].write_text(render(name, tell(told, run), run))
    return made


def colours(png: bytes) -> int:
    """How many different bytes an 8-bit PNG's rows hold: of a blank one a handful."""
    data, at = b"", 8
    while at < len(png):
        size = int.from_bytes(png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + size]
        at += size + 12
    return len(set(zlib.decompress(data)))


LOOKS = [
    ("sort", 375, "light", "screen"),
    ("wide", 375, "light", "screen"),
    ("broken", 375, "light", "screen"),
    ("sort", 1200, "dark", "screen"),
    ("wide", 1200, "dark", "screen"),
    ("broken", 1200, "light", "screen"),
    ("sort", 794, "light", "print"),  # A4
    ("broken", 794, "light", "print"),
    ("wide", 794, "light", "print"),
    ("wide", 320, "dark", "screen"),
]


@pytest.mark.parametrize("look", quick(LOOKS, 6))
def test_a_page_is_quiet_fits_and_can_be_read(
    look: tuple[str, int, str, str], browser: Browser, pages: dict[str, Path]
) -> None:
    name, width, scheme, media = look
    page = browser.open(pages[name], width)
    page.look(width, scheme=scheme, media=media)
    # What is folded away must fit as well.
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert too_wide(page, width, paper=media == "print") == ""
    assert page.evaluate(_TOO_FAINT) == ""
    assert colours(page.screenshot(2000)) > 60
    assert page.trouble == []


def test_a_run_that_was_just_made(tmp_path: Path) -> None:
    """What today's nodes tell is what the recorded runs' told."""
    record(sort_job(2), 300_000, tmp_path)
    run = run_folder.load_report(tmp_path)
    story = tell(run_folder.load_moments(tmp_path), run)
    assert (len(story.nodes), len(story.streams), len(story.objects)) == (4, 4, 2)
    assert all(node.told and node.well for node in story.nodes.values())
    assert all(s.send and s.recv and s.route == "host" for s in story.streams.values())
    path = path_of(story)
    assert path[-1].end >= run["elapsed_s"]
    assert {Kind.PREPARE, Kind.RUN, Kind.FINISH} <= {s.kind for s in path}
    assert Kind.UNKNOWN not in {s.kind for s in path}
    assert 'class="notes"' not in render("x", story, run)


def test_what_it_does_not_hold_it_may_not_load(browser: Browser, pages: dict[str, Path]) -> None:
    """A link or a script that got in, in spite of all, would still be refused."""
    page = browser.open(pages["sort"])
    added = "document.body.insertAdjacentHTML('beforeend', '<img src=\"https://example.org/x\">')"
    page.evaluate(added)
    page.evaluate("new Promise(done => setTimeout(done, 100))")
    assert [t for t in page.trouble if "Content Security Policy" in t]


@pytest.mark.parametrize("name", ["sort", "wide"])
def test_pictures_are_named_and_scroll_by_keyboard(
    name: str, browser: Browser, pages: dict[str, Path]
) -> None:
    page = browser.open(pages[name])
    unnamed = """[...document.querySelectorAll('svg[role=img]')].filter(s =>
        !s.getAttribute('aria-label') && !document.getElementById(
            (s.getAttribute('aria-labelledby') || '').split(' ')[0])).length"""
    assert page.evaluate(unnamed) == 0
    scrolls = "[...document.querySelectorAll('.scroll')].every(e => e.tabIndex === 0)"
    assert page.evaluate(scrolls)
    picture = "document.querySelector('.picture')"
    assert page.evaluate(f"{picture}.clientWidth") <= 1200
    if name == "wide":
        assert page.evaluate(f"{picture}.scrollWidth > {picture}.clientWidth")


def test_these_checks_see_what_is_wrong(browser: Browser, pages: dict[str, Path]) -> None:
    page = browser.open(pages["sort"], 375)
    page.evaluate("document.documentElement.style.setProperty('--soft', '#aaa')")
    page.evaluate("document.querySelector('h1').style.width = '500px'")
    page.evaluate("console.log('said')")
    assert "P eyebrow" in page.evaluate(_TOO_FAINT)
    assert too_wide(page, 375).startswith("H1")
    assert page.evaluate("document.documentElement.scrollWidth") > 375
    assert "said" in page.trouble[0]
    page.evaluate("document.body.replaceChildren()")
    assert colours(page.screenshot(800)) < 20
