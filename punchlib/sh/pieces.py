"""Cuts the input of a plan into pieces, one for each worker, and says how many there should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from punchlib.runtime.s3_several import Part
from punchlib.sh.plan import Plan, Turn

_T = TypeVar("_T")


@dataclass(frozen=True)
class Input:
    """One object of the job's input.

    Attributes:
        key: in the bucket.
        size: bytes.
        etag: what is to be read, and nothing that comes after it; "" where nobody else writes it.
    """

    key: str
    size: int
    etag: str = ""


@dataclass(frozen=True)
class Piece:
    """What one worker reads.

    Attributes:
        begin: where it begins in the whole input, in bytes; of whole files and of turns it is the
            piece's number. 0 where nothing comes before it.
        parts: of the objects, in order.
        turns: of a loop, in order; then there are no parts.
    """

    begin: int
    parts: tuple[Part, ...] = ()
    turns: tuple[Turn, ...] = ()


def pieces(plan: Plan, width: int, inputs: Mapping[str, Input]) -> list[Piece]:
    """The pieces of the input, in its order; none where the plan has no workers.

    Args:
        plan: says whether an object may be cut.
        width: how many there may be.
        inputs: by the names that the plan has.
    """
    if not plan.has_workers:
        return []
    if plan.turns:
        sizes = [1 + sum(inputs[name].size for name in turn.inputs) for turn in plan.turns]
        dealt = _dealt(sizes, plan.turns, width)
        return [Piece(number, turns=turns) for number, turns in enumerate(dealt)]
    objects = [inputs[name] for name in plan.inputs or ()]
    if plan.unpack:
        # An empty file is none that a program could unpack; in the whole it would add nothing.
        full = [o for o in objects if o.size]
        files = _dealt([o.size for o in full], full, width)
        return [Piece(n, tuple(map(whole, share))) for n, share in enumerate(files)] or [Piece(0)]
    total = sum(o.size for o in objects)
    return [_of_lines(objects, number, width, total) for number in range(width)]


def _of_lines(objects: list[Input], number: int, width: int, total: int) -> Piece:
    begin = number * total // width
    end = (number + 1) * total // width
    found, at = [], 0
    for obj in objects:
        first, stop = max(begin - at, 0), min(end - at, obj.size)
        if first < stop:
            found.append(Part(obj.key, first, stop - 1, obj.size, obj.etag))
        at += obj.size
    return Piece(begin, tuple(found))


def whole(obj: Input) -> Part:
    """All of an object."""
    return Part(obj.key, 0, max(0, obj.size - 1), obj.size, obj.etag)


def _dealt(sizes: Sequence[int], things: Sequence[_T], width: int) -> list[tuple[_T, ...]]:
    """Things, in their order, in at most `width` shares of about the same size."""
    total, shares = sum(sizes), min(width, len(things))
    dealt: dict[int, list[_T]] = {}
    at = 0
    for thing, size in zip(things, sizes, strict=True):
        share = int((at + size / 2) * shares / total)
        dealt.setdefault(min(shares - 1, share), []).append(thing)
        at += size
    return [tuple(dealt[share]) for share in sorted(dealt)]


#: Bytes for one more worker: some seconds of its time, against the half second that it takes to
#: start. Packed text is several times as much when it is unpacked.
_A_PIECE, _A_PACKED_PIECE = 32 << 20, 8 << 20


def best_width(plan: Plan, inputs: Mapping[str, Input], most: int) -> int:
    """How many workers are worth their start.

    Args:
        plan, inputs: as in `pieces`.
        most: that there may be.
    """
    size = sum(inputs[name].size for name in plan.inputs or ())
    step = _A_PACKED_PIECE if plan.unpack else _A_PIECE
    return max(1, min(most, -(-size // step)))
