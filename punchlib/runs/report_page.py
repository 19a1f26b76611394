"""A run as one HTML page that needs nothing else: no script, no font, no picture from elsewhere.

This module gathers what the page shows, as data; `templates/report.html` says how it looks. All
text of a job is untrusted: Jinja escapes it, and control characters are shown as such.
"""

from __future__ import annotations

import datetime
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from punchlib.errors import UsageError, escape
from punchlib.runs import dataflow, failures, phases
from punchlib.runs.cost import money
from punchlib.runs.critical_path import Segment, path_of, sentence, shares
from punchlib.runs.dataflow import Arrow, Box, Graph, natural
from punchlib.runs.phases import Phase
from punchlib.runs.story import End, NodeStory, Story, dicts, number

#: Ends of streams up to which the timeline shows each at once.
_OPEN = 24
#: Waits named under "where the time went".
_MOST_SHARES = 6
#: Characters of a text that the page shows.
_MOST_TEXT = 20_000
_PLACES = {"ec2": "EC2", "lambda": "Lambda", "here": "the runner"}
_ROUTES = {"host": "direct", "punched": "punched", "s3": "through S3"}


def render(name: str, story: Story, run: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """The page.

    Args:
        name: the run's.
        story: its events, gathered.
        run: its run.json.
        notes: what is wrong with these two, for people.

    Raises:
        UsageError: Jinja is not installed.
    """
    page: str = _template().render(**_content(name, story, run, notes))
    return page


@functools.cache
def _template() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise UsageError(
            "the page needs Jinja, which is not installed here",
            next_step="pip install 'punchlib[report]'; --trace - does without it",
        ) from error
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("punchlib.runs", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    env.filters |= {"seconds": seconds, "size": size, "money": money, "short": short}
    return env.get_template("report.html")


def _shown(value: object) -> object:
    """Whatever the template writes: control characters as such, nothing endless."""
    return escape(value, _MOST_TEXT) if type(value) is str else value


def _content(
    name: str, story: Story, run: Mapping[str, Any], notes: Sequence[str]
) -> dict[str, Any]:
    path = path_of(story)
    graph = dataflow.draw(story)
    rank = {b.id: b.layer for b in graph.boxes if not b.is_object}
    nodes = sorted(story.nodes.values(), key=lambda n: (rank.get(n.id, 0), natural(n.id)))
    total = sum(stream.bytes for stream in story.streams.values())
    return {
        "name": name,
        "folder": str(run.get("job") or ""),
        "job": PurePath(str(run.get("job") or "")).name,
        "ok": run.get("ok") if isinstance(run.get("ok"), bool) else None,
        "began": _date(run.get("began")),
        "elapsed": story.elapsed,
        "nodes": nodes,
        "places": _counts([_PLACES.get(n.place, n.place) for n in nodes]),
        "cold": sum(n.cold is True for n in nodes),
        "streams": [_stream(s, story) for s in story.streams.values()],
        "total": total,
        "routes": _counts([route(s.route) or "not connected" for s in story.streams.values()]),
        "outputs": [(str(o.get("key", "")), number(o.get("bytes"))) for o in dicts(run, "outputs")],
        "sentence": sentence(path, story.elapsed),
        "shares": shares(path)[:_MOST_SHARES] if story.elapsed else [],
        "path": path,
        "failures": failures.of(run),
        "rows": [_row(n, story, path) for n in nodes],
        "own": [_bar(s, story, s.text) | {"name": "finish"} for s in path if not s.node],
        "open": sum(len(n.ends) for n in nodes) <= _OPEN,
        "ticks": ticks(story.elapsed),
        "tick_every": _percent(_tick(story.elapsed), story),
        "of_nodes": [(n, phases.LABELS[n]) for n in phases.OF_NODES],
        "of_streams": [(n, phases.LABELS[n]) for n in phases.OF_STREAMS],
        "graph": graph,
        "boxes": [_box(b, graph, story, path) for b in graph.boxes],
        "arrows": [_arrow(a, graph, path) for a in graph.arrows],
        "cost": _cost(run.get("cost")),
        "notes": [*notes, *_gaps(story)],
        "place_names": _PLACES,
    }


# --- the timeline ---------------------------------------------------------------------------


def _row(node: NodeStory, story: Story, path: Sequence[Segment]) -> dict[str, Any]:
    ends = sorted(node.ends, key=lambda e: (e.sending, e.times.get("connected", 0.0)))
    return {
        "node": node,
        "bars": [_phase(p, story) for p in phases.of_node(node)],
        "path": [_bar(s, story, s.text) for s in path if s.node == node.id],
        "ends": [_end(e, node, story) for e in ends],
        "mark": _percent(node.over, story) if node.failed else None,
        "seconds": _lasted(node),
        "said": f"{node.id}, from {seconds(node.times.get('asked', 0.0))} to {seconds(node.over)}",
    }


def _lasted(node: NodeStory) -> float:
    return max(node.over - node.times.get("asked", 0.0), 0.0)


def _end(end: End, node: NodeStory, story: Story) -> dict[str, Any]:
    stream = story.streams[end.key]
    other = stream.recv if end.sending else stream.send
    failed = end.times.get("failed")
    return {
        "end": end,
        "other": other.node if other and other is not end else "",
        "route": route(end.route),
        "bars": [_phase(p, story) for p in phases.of_end(end, node.over)],
        "mark": None if failed is None else _percent(failed, story),
    }


def _phase(phase: Phase, story: Story) -> dict[str, Any]:
    return _bar(phase, story, phase.label) | {"name": phase.name}


def _bar(span: Phase | Segment, story: Story, text: str) -> dict[str, Any]:
    """Where a bar lies, in percent of the run's time."""
    left = _percent(span.begin, story)
    width = max(round(_percent(span.end, story) - left, 2), 0.08)
    return {"x": left, "width": width, "text": text, "begin": span.begin, "end": span.end}


def _percent(at: float, story: Story) -> float:
    return round(min(max(100 * at / story.elapsed, 0.0), 100.0), 2) if story.elapsed else 0.0


def _tick(elapsed: float) -> float:
    """A round number of seconds of which four to ten make the whole."""
    step = 10.0**-3
    while elapsed / step > 10 and step < 1e12:
        for factor in (1, 2, 5):
            if elapsed / (step * factor) <= 10:
                return step * factor
        step *= 10
    return step


def ticks(elapsed: float) -> list[tuple[float, str]]:
    """The axis: where, in percent, and what is written there."""
    if elapsed <= 0:
        return []
    step = _tick(elapsed)
    count = int(elapsed / step)
    return [(round(100 * n * step / elapsed, 2), f"{n * step:g}") for n in range(count + 1)]


# --- the dataflow ---------------------------------------------------------------------------


def _box(box: Box, graph: Graph, story: Story, path: Sequence[Segment]) -> dict[str, Any]:
    node = None if box.is_object else story.nodes[box.id]
    detail = ""
    if node:
        cold = ", cold" if node.cold else ""
        detail = f"{_PLACES.get(node.place, node.place)}{cold} · {seconds(_lasted(node))}"
        detail = detail if node.told else "told nothing"
    most = 16 if graph.roomy else 11
    return {
        "box": box,
        "node": node,
        "name": _end_of(box.id, most) if box.is_object else short(box.id, most),
        "detail": detail or "object in the bucket",
        "on_path": node is not None and any(s.node == node.id for s in path),
        "x": box.x - graph.box[0] / 2,
        "y": box.y - graph.box[1] / 2,
    }


def _arrow(arrow: Arrow, graph: Graph, path: Sequence[Segment]) -> dict[str, Any]:
    half = graph.box[0] / 2
    x1, y1 = arrow.source.x + half, arrow.source.y
    x2, y2 = arrow.target.x - half - 5, arrow.target.y
    bend = max((x2 - x1) / 2, 24.0)
    most = max((a.bytes for a in graph.arrows), default=0)
    ways = ", ".join(route(r) for r in arrow.routes)
    count = f"{len(arrow.streams)} streams, " if len(arrow.streams) > 1 else ""
    label = f"{size(arrow.bytes)}" + (f" · {ways}" if ways else "")
    title = f"{arrow.source.id} → {arrow.target.id}: {count}{size(arrow.bytes)} {ways}".rstrip()
    x, y, anchor = _beside(arrow, graph, x1, x2)
    curve = f"C{x1 + bend:.0f} {y1:.1f} {x2 - bend:.0f} {y2:.1f} {x2:.0f} {y2:.1f}"
    return {
        "d": f"M{x1:.0f} {y1:.1f}{curve}",
        "width": round(1.1 + 2.6 * (arrow.bytes / most) ** 0.5, 2) if most else 1.1,
        "x": x,
        "y": y,
        "anchor": anchor,
        "label": label + (" · failed" if arrow.failed else ""),
        "title": title,
        "object": arrow.source.is_object or arrow.target.is_object,
        "s3": "s3" in arrow.routes,
        "failed": arrow.failed,
        "on_path": _follows(arrow, path),
    }


def _beside(arrow: Arrow, graph: Graph, left: float, right: float) -> tuple[float, float, str]:
    """Where an arrow's label stands: at the end where it is alone, on its bend's outer side."""
    y1, y2 = arrow.source.y, arrow.target.y
    if y1 == y2:
        return (left + right) / 2, y1 - 7, "middle"
    out = sum(a.source is arrow.source for a in graph.arrows)
    into = sum(a.target is arrow.target for a in graph.arrows)
    if out >= into:
        return right - 4, y2 - 7 if y1 > y2 else y2 + 16, "end"
    return left + 4, y1 - 7 if y2 > y1 else y1 + 16, "start"


def _follows(arrow: Arrow, path: Sequence[Segment]) -> bool:
    pair = (arrow.source.id, arrow.target.id)
    follow = ((a.node, b.node) for a, b in itertools.pairwise(path))
    return bool(arrow.streams) and any(p in (pair, pair[::-1]) for p in follow)


# --- the tables -----------------------------------------------------------------------------


def _stream(stream: Any, story: Story) -> dict[str, Any]:
    made = [e for e in stream.ends if "connected" in e.times]
    return {
        "stream": stream,
        "source": stream.send.node if stream.send else "",
        "target": stream.recv.node if stream.recv else "",
        "route": route(stream.route),
        "setup": max((e.setup for e in made), default=0.0),
        "attempts": max((e.attempts for e in stream.ends), default=0),
        "failed": stream.error,
    }


def _cost(cost: object) -> dict[str, Any] | None:
    if not isinstance(cost, Mapping):
        return None
    total = number(cost.get("total"))
    # As many decimals as make two of the whole's digits count, and two more.
    places = 2 if total >= 1 else min(3 - math.floor(math.log10(max(total, 1e-9))), 10)
    return {
        "total": total,
        "detour": number(cost.get("detour")),
        "prices_of": str(cost.get("prices_of") or ""),
        "lines": [
            {
                "what": str(line.get("what", "")),
                "quantity": _quantity(number(line.get("quantity"))),
                "unit": str(line.get("unit", "")),
                "price": _price(number(line.get("price"))),
                "dollars": f"${number(line.get('dollars')):,.{places}f}",
            }
            for line in dicts(cost, "lines")
            if number(line.get("quantity"))
        ],
        "together": f"${total:,.{places}f}",
    }


def _quantity(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.3f}"


def _price(value: float) -> str:
    return f"${value * 1e6:,.2f} a million" if 0 < value < 1e-3 else money(value)


def _gaps(story: Story) -> list[str]:
    """What the events do not say."""
    found = []
    silent = [n.id for n in story.nodes.values() if not n.told]
    if silent:
        found.append(
            f"No events came from {_some(silent)}: killed, never started, or of an older release."
        )
    dropped = sum(n.dropped for n in story.nodes.values())
    if dropped:
        found.append(
            f"{dropped} events were more than their nodes keep for a run, and are missing."
        )
    halves = [s for s in story.streams.values() if len(s.ends) < 2]
    if halves:
        found.append(f"Of {len(halves)} streams only one end is known.")
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _counts(values: Sequence[str]) -> list[tuple[str, int]]:
    return [(v or "unknown", values.count(v)) for v in sorted(set(values))]


# --- words ----------------------------------------------------------------------------------


def route(name: str) -> str:
    """A route, for people."""
    return _ROUTES.get(name, name)


def seconds(value: float) -> str:
    """A time: 0.42 s, 3.1 s, 2 min 05 s."""
    if value >= 120:
        return f"{int(value) // 60} min {int(value) % 60:02} s"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def size(value: float) -> str:
    """Bytes, in powers of 1,000."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}" if unit != "B" else f"{value:.0f} B"
        value /= 1000
    return f"{value:,.3g} TB"


def short(text: str, most: int) -> str:
    """The beginning of a text, in one line."""
    line = escape(text).replace("\n", " ")
    return line if len(line) <= most else line[: most - 1] + "…"


def _end_of(text: str, most: int) -> str:
    line = escape(text).replace("\n", " ")
    return line if len(line) <= most else "…" + line[1 - most :]


def _date(began: object) -> str:
    try:
        at = datetime.datetime.fromtimestamp(number(began), datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return ""
    return at.strftime("%Y-%m-%d %H:%M:%S UTC") if number(began) else ""
