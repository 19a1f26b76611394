"""The pictures of docs/report.md and docs/watching-runs.md, from recorded runs.

    python -m tests.support.report_pictures            draws them anew (`make pictures`)
    python -m tests.support.report_pictures RUN OUT.png [WIDTH [light|dark|print [HEIGHT]]]

RUN is one of those recorded, or a page.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from punchlib.cli.live_view import LiveView
from punchlib.runs.report_page import render
from punchlib.runs.story import tell
from tests.support.browser import Browser
from tests.support.recorded_runs import load

DOCS = Path(__file__).parents[2] / "docs"


def page_of(run: str, folder: Path) -> Path:
    """A recorded run's page, in a file."""
    told, about = load(run)
    file = folder / f"{run}.html"
    file.write_text(render(about["job_id"], tell(told, about), about))
    return file


def draw(
    page: Path, out: Path, width: int, look: str, height: int | None = None, around: str = ""
) -> None:
    """Writes a PNG of a page.

    Args:
        page: its file.
        out: the PNG.
        width: CSS pixels.
        look: light, dark or print.
        height: CSS pixels; None: all of it.
        around: the id of an element above which half a picture is to be seen, not the page's head.
    """
    with Browser() as browser:
        shown = browser.open(page, width)
        scheme = "dark" if look == "dark" else "light"
        shown.look(width, scheme=scheme, media="print" if look == "print" else "screen")
        top = 0
        if around and height:
            place = f"document.getElementById('{around}').getBoundingClientRect().top + scrollY"
            top = int(shown.evaluate(place)) - height // 2
        out.write_bytes(shown.screenshot(height, top))


def draw_live(run: str, share: float, out: Path) -> None:
    """Writes an SVG of the live view, at a share of a recorded run's time."""
    told, _ = load(run)
    ended = max(moment.at for moment in told)
    console = Console(record=True, width=100, height=28, force_terminal=True, file=io.StringIO())
    places = {m.node: m.text("punch.place") for m in told if m.event == "run.node_started"}
    view = LiveView(console, places, before=ended)
    for moment in told:
        if moment.at <= share * ended:
            view.take(moment)
    console.print(view.render(share * ended))
    # The class names differ from one drawing to the next.
    svg = console.export_svg(title="punch run", unique_id="live")
    out.write_text(svg)


def main(
    run: str = "", out: str = "", width: str = "1100", look: str = "light", height: str = "0"
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        if not run:
            draw_live("wide", 0.75, DOCS / "live-view.svg")
            folder = Path(scratch)
            draw(page_of("sort", folder), DOCS / "report-4-nodes.png", 1152, "light", 1370)
            wide = page_of("wide", folder)
            draw(wide, DOCS / "report-83-nodes.png", 1152, "dark", 1160, around="h-flow")
            return
        page = Path(run) if Path(run).is_file() else page_of(run, Path(scratch))
        draw(page, Path(out), int(width), look, int(height) or None)


if __name__ == "__main__":
    main(*sys.argv[1:])
