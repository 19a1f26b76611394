"""What a job of `punch sh` will about take, before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from punchlib.runs.cost import Cost, priced
from punchlib.sh.emit import FAN_IN
from punchlib.sh.pieces import Piece

#: Bytes a second that one worker gets through `tr | sort | uniq -c` (`make bench-sh`, one core of
#: this class): filters are several times as fast, programs in awk slower.
RATE = 25e6
#: Seconds from the start of the runner to the first byte, workers warm; cold they take two more.
START = 1.0
#: Bytes of one request of a reader, and what each node and each connection asks for besides.
_BLOCK = 8 << 20
_NODE_GETS, _NODE_PUTS, _CONNECTION_WRITES, _CONNECTION_READS = 2, 1, 6, 4


def nodes(workers: int, *, gather: bool = True) -> int:
    """Lambda nodes of a job: its workers, the tree that gathers what they send, and the last.

    Args:
        workers: how many.
        gather: False where the workers put the result into S3.
    """
    count, parts = workers, workers
    if not gather:
        return count
    while parts > FAN_IN:
        parts = -(-parts // FAN_IN)
        count += parts
    return count + 1


def seconds(pieces: list[Piece], size: int) -> float:
    """About how long it takes.

    Args:
        pieces: one for each worker; none where the last node reads everything.
        size: bytes of the input.
    """
    return START + size / max(1, len(pieces)) / RATE


def cost(
    pieces: list[Piece], count: int, size: int, memory: int, prices: Mapping[str, Any]
) -> Cost:
    """About what it costs on AWS, without what the workers send to each other.

    Args:
        pieces, size: as in `seconds`.
        count: of nodes.
        memory: of the function, in bytes.
        prices: `runs.cost.load_prices`.
    """
    gb_seconds = count * seconds(pieces, size) * memory / (1 << 30)
    blocks = sum(len(p.parts) for p in pieces) + size // _BLOCK
    lines = priced(
        {
            "Lambda": gb_seconds,
            "Lambda requests": count,
            "S3 writes": count * _NODE_PUTS,
            "S3 reads": count * _NODE_GETS + blocks,
            "DynamoDB writes": count * _CONNECTION_WRITES,
            "DynamoDB reads": count * _CONNECTION_READS,
        },
        prices,
    )
    return Cost(lines, 0.0, str(prices["as_of"]))
