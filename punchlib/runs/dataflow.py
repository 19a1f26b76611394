"""The dataflow of a run as a graph, laid out in layers: every arrow runs to the right.

A layer is the longest way from a source. Where streams run in a circle, which no job that ends
does, the node with the fewest open inputs goes first, so there is always a picture.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

from punchlib.runs.story import Story, Stream

#: Nodes up to which each has room for its details, and each arrow for its label.
ROOMY = 16
#: Sweeps that bring what is connected onto one height.
_SWEEPS = 6


@dataclass
class Box:
    """A node, or an object of the bucket.

    Attributes:
        id: the node's, or the object's key.
        is_object: it is an object.
        layer: from 0, on the left.
        x, y: of its middle, in the picture's units (CSS pixels).
    """

    id: str
    is_object: bool = False
    layer: int = 0
    x: float = 0.0
    y: float = 0.0


@dataclass
class Arrow:
    """What flows from one box to another: streams, or an object.

    Attributes:
        bytes: payload, as far as is known.
    """

    source: Box
    target: Box
    bytes: int = 0
    streams: list[Stream] = field(default_factory=list)

    @property
    def routes(self) -> list[str]:
        """The ways that its streams took; of one that never was connected nothing."""
        return sorted({s.route for s in self.streams if s.route})

    @property
    def failed(self) -> bool:
        return any(s.error for s in self.streams)


@dataclass
class Graph:
    """The picture.

    Attributes:
        width, height: in its units.
        box: width and height of each box.
        roomy: there is room for details.
    """

    boxes: list[Box]
    arrows: list[Arrow]
    width: float
    height: float
    box: tuple[float, float]
    roomy: bool


def natural(text: str) -> list[tuple[int, int | str]]:
    """A key that puts worker2 before worker10."""
    parts = re.split(r"([0-9]{1,18})", text)
    return [(0, int(p)) if p.isascii() and p.isdigit() else (1, p) for p in parts]


def draw(story: Story) -> Graph:
    """Lays the dataflow of a run out."""
    boxes, arrows = _gather(story)
    _rank(boxes, arrows)
    layers = _ordered(boxes, arrows)
    roomy = len(boxes) <= ROOMY
    box = (138.0, 46.0) if roomy else (80.0, 22.0)
    gap_x, gap_y, margin = (94.0, 34.0, 8.0) if roomy else (46.0, 9.0, 12.0)
    tallest = max((len(layer) for layer in layers), default=0)
    height = tallest * (box[1] + gap_y) + 2 * margin
    for number, layer in enumerate(layers):
        for place, b in enumerate(layer):
            b.x = margin + number * (box[0] + gap_x) + box[0] / 2
            b.y = margin + (place + 0.5) * (height - 2 * margin) / len(layer)
    width = len(layers) * (box[0] + gap_x) - gap_x + 2 * margin
    return Graph(boxes, arrows, max(width, 0.0), height, box, roomy)


def _gather(story: Story) -> tuple[list[Box], list[Arrow]]:
    boxes: dict[tuple[bool, str], Box] = {}
    arrows: dict[tuple[bool, str, bool, str], Arrow] = {}

    def box(id_: str, *, is_object: bool = False) -> Box:
        return boxes.setdefault((is_object, id_), Box(id_, is_object))

    def arrow(source: Box, target: Box) -> Arrow:
        key = (source.is_object, source.id, target.is_object, target.id)
        return arrows.setdefault(key, Arrow(source, target))

    for id_ in story.nodes:
        box(id_)
    for stream in story.streams.values():
        if stream.send and stream.recv and stream.send.node != stream.recv.node:
            found = arrow(box(stream.send.node), box(stream.recv.node))
            found.streams.append(stream)
            found.bytes += stream.bytes
    for obj in story.objects:
        there, node = box(obj.key, is_object=True), box(obj.node)
        found = arrow(node, there) if obj.written else arrow(there, node)
        found.bytes += obj.bytes
    return list(boxes.values()), list(arrows.values())


def _rank(boxes: list[Box], arrows: list[Arrow]) -> None:
    waits: dict[int, set[int]] = {id(b): set() for b in boxes}
    after: dict[int, list[Box]] = defaultdict(list)
    for arrow in arrows:
        waits[id(arrow.target)].add(id(arrow.source))
        after[id(arrow.source)].append(arrow.target)
    left = {id(b): b for b in sorted(boxes, key=lambda b: natural(b.id))}
    while left:
        free = [b for key, b in left.items() if not waits[key] & left.keys()]
        free = free or [min(left.values(), key=lambda b: len(waits[id(b)] & left.keys()))]
        for b in free:
            del left[id(b)]
        for b in free:
            for target in after[id(b)]:
                if id(target) in left:
                    target.layer = max(target.layer, b.layer + 1)
    # What only feeds a later layer stands right before it.
    for b in boxes:
        targets = after[id(b)]
        if targets and not waits[id(b)]:
            b.layer = max(min(t.layer for t in targets) - 1, 0)


def _ordered(boxes: list[Box], arrows: list[Arrow]) -> list[list[Box]]:
    """The layers, each in an order that lets few arrows cross: that of its neighbours' heights."""
    layers: dict[int, list[Box]] = defaultdict(list)
    for b in sorted(boxes, key=lambda b: natural(b.id)):
        layers[b.layer].append(b)
    rows = [layers[n] for n in sorted(layers)]
    before: dict[int, list[Box]] = defaultdict(list)
    after: dict[int, list[Box]] = defaultdict(list)
    for arrow in arrows:
        before[id(arrow.target)].append(arrow.source)
        after[id(arrow.source)].append(arrow.target)
    height: dict[int, float] = {}

    def settle(row: list[Box]) -> None:
        height.update((id(b), (n + 0.5) / len(row)) for n, b in enumerate(row))

    for row in rows:
        settle(row)
    for sweep in range(_SWEEPS):
        near = after if sweep % 2 else before
        for row in rows[::-1] if sweep % 2 else rows:
            middle = {
                id(b): sum(height[id(n)] for n in near[id(b)]) / len(near[id(b)])
                if near[id(b)]
                else height[id(b)]
                for b in row
            }
            row.sort(key=lambda b: middle[id(b)])
            settle(row)
    return rows
