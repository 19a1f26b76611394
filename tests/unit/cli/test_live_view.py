"""The live view, as terminals of several sizes have it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from punchlib.cli.live_view import LiveView, size
from punchlib.runs.timeline import Moment


def drawn(width: int, height: int, nodes: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True)
    places = {f"w[{n}]": "lambda" for n in range(nodes)}
    view = LiveView(console, places, before=10.0)
    for number, node in enumerate(places):
        view.take(Moment(1.0, node, "run.node_started"))
        if number % 2:
            view.take(Moment(2.0, node, "run.node_ended"))
    with console.capture() as captured:
        console.print(view.render(2.5))
    plain = Console(file=io.StringIO(), width=width, height=height, no_color=True)
    assert plain.width == width
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("nodes", [1, 4, 83])
def test_it_fits(width: int, nodes: int) -> None:
    lines = drawn(width, 24, nodes)
    assert len(lines) <= 24
    assert "w[0]" in "".join(lines), "names are no markup"


def test_what_it_says() -> None:
    text = "\n".join(drawn(200, 24, 4))
    for said in ("WAITS FOR", "its worker", "2 starting", "2 ok", "about 8 s left"):
        assert said in text
    assert "79 more" not in text
    assert "65 more" in "\n".join(drawn(200, 24, 83))


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e12, "2.0 TB")]
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text
