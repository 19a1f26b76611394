"""`r_unwrap <F >F`: strips the frame headers. A truncated input is an error."""

from __future__ import annotations

from punchlib.runtime import blocks
from punchlib.runtime.pipes import Mover, grow, read_exactly
from punchlib.runtime.tool_edge import run


def unwrap(source: int, target: int) -> None:
    """Copies the payload of every frame.

    Raises:
        StreamBroken: the input is cut, or is not framed.
    """
    mover = Mover(source)
    complete = True
    while head := read_exactly(source, blocks.HEADER_SIZE):
        if len(head) < blocks.HEADER_SIZE:
            raise blocks.truncated(blocks.HEADER_SIZE - len(head))
        header = blocks.decode(head)
        missing = mover.exactly(target, header.size)
        if missing:
            raise blocks.truncated(missing, header)
        complete = header.is_last
    if not complete:  # the rest of a block never came: whoever made it failed
        raise blocks.truncated(blocks.HEADER_SIZE)


def main() -> int:
    def body() -> int:
        grow(0, 2)
        grow(1, 2)
        unwrap(0, 1)
        return 0

    return run("r_unwrap", body)
