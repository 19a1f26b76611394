"""Runs a plan on pieces, on this machine: the real commands, without nodes and a network.

What may fail here is what fails a job: `None` stands for "one message and no result".
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from punchlib.errors import PunchError
from punchlib.sh.forms import MAY_SAY_ONE, REDUCE, Gather
from punchlib.sh.plan import Command, Plan

ENV = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
_SH_REDUCE = "import sys; from punchlib.runtime.sh_reduce import main; sys.exit(main())"
#: Seconds for one command on an input of a few lines.
_PATIENCE = 20


def ran(words: Sequence[str], data: bytes) -> bytes | None:
    """A command's output; None where it fails.

    Raises:
        PunchError: it cannot be run, or does not end.
    """
    reduce = [sys.executable, "-c", _SH_REDUCE] if words[0] == REDUCE else [words[0]]
    try:
        done = subprocess.run(
            [*reduce, *words[1:]],
            input=data,
            capture_output=True,
            env=ENV,
            timeout=_PATIENCE,
            check=False,
        )
    except OSError as error:
        raise PunchError(f"{words[0]} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise PunchError(f"{words[0]} has not ended after {_PATIENCE} s") from None
    good = done.returncode == 0 or (done.returncode == 1 and words[0] in MAY_SAY_ONE)
    return done.stdout if good else None


def through(stages: Sequence[Sequence[str]], data: bytes | None) -> bytes | None:
    """What a pipeline makes of it; None where a stage fails."""
    for words in stages:
        if data is None:
            break
        data = ran(words, data)
    return data


def on_piece(command: Command, data: bytes, *, first: bool) -> bytes | None:
    """What a worker makes of its piece."""
    if command.text_only and b"\0" in data:
        return None
    if first or not command.primed:
        return ran(command.words, data)
    out = ran(command.words, b"\n" + data)
    return None if out is None else out[1:]


def gathered(gather: Gather, outputs: Sequence[bytes]) -> bytes | None:
    """The outputs of consecutive pieces as one."""
    if not gather.merges:
        whole = b"".join(outputs)
        return ran(gather.words, whole) if gather.words else whole
    if len(outputs) == 1:
        return outputs[0]
    with tempfile.TemporaryDirectory(prefix="punch-sh-") as folder:
        paths = [Path(folder, f"piece{number}") for number in range(len(outputs))]
        for path, out in zip(paths, outputs, strict=True):
            path.write_bytes(out)
        return ran([*gather.words, *map(str, paths)], b"")


def result(plan: Plan, pieces: Sequence[bytes], fan_in: int = 2) -> bytes | None:
    """What the job would write.

    Args:
        plan: what runs where.
        pieces: of the input, in order.
        fan_in: outputs that are gathered at a time.
    """
    outputs, before = [], b""
    for piece in pieces:
        out: bytes | None = piece
        for command in plan.mapped:
            out = None if out is None else on_piece(command, out, first=not before)
        if out is None:
            return None
        outputs.append(out)
        before += piece
    while True:
        joined = []
        for left in range(0, len(outputs), fan_in):
            some = gathered(plan.gather, outputs[left : left + fan_in])
            some = through([command.words for command in plan.after], some)
            if some is None:
                return None
            joined.append(some)
        outputs = joined
        if len(outputs) == 1:
            return through([command.words for command in plan.tail], outputs[0])
