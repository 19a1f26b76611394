"""Runs a plan of `punch sh` on pieces, with the real commands and without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from punchlib.sh.commands import REDUCE
from punchlib.sh.forms import Gather
from punchlib.sh.plan import Command, Plan

ENV = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
_SH_REDUCE = "import sys; from punchlib.runtime.sh_reduce import main; sys.exit(main())"


def ran(words: tuple[str, ...], data: bytes) -> tuple[bytes, int]:
    """A command's output and status."""
    done = subprocess.run(words, input=data, capture_output=True, env=ENV, check=False)
    return done.stdout, done.returncode


def on_piece(command: Command, data: bytes, *, first: bool) -> bytes | None:
    """What a worker makes of its piece; None where it refuses, with a message."""
    if command.text_only and b"\0" in data:
        return None
    primed = command.primed and not first
    out, status = ran(command.words, (b"\n" if primed else b"") + data)
    if status not in (0, 1):
        return None
    return out[1:] if primed else out


def gathered(gather: Gather, outputs: list[bytes], folder: Path) -> bytes:
    """The outputs of consecutive pieces as one."""
    if not gather.merges:
        whole = b"".join(outputs)
        return ran(gather.words, whole)[0] if gather.words else whole
    if len(outputs) == 1:
        return outputs[0]
    paths = []
    for number, out in enumerate(outputs):
        paths.append(str(folder / f"piece{number}"))
        Path(paths[-1]).write_bytes(out)
    words = gather.words
    if words[0] == REDUCE:
        words = (sys.executable, "-c", _SH_REDUCE, *words[1:])
    out, status = ran((*words, *paths), b"")
    assert status == 0, words
    return out


def result(plan: Plan, pieces: list[bytes], folder: Path, fan_in: int = 2) -> bytes | None:
    """What the job would write; None where a worker refuses."""
    outputs = []
    before = b""
    for piece in pieces:
        out: bytes | None = piece
        for command in plan.mapped:
            out = on_piece(command, out or b"", first=not before)
            if out is None:
                return None
        outputs.append(out or b"")
        before += piece
    while True:
        joined = []
        for left in range(0, len(outputs), fan_in):
            out = gathered(plan.gather, outputs[left : left + fan_in], folder)
            for command in plan.after:
                out = ran(command.words, out)[0]
            joined.append(out)
        outputs = joined
        if len(outputs) == 1:
            break
    stream = outputs[0]
    for command in plan.tail:
        stream = ran(command.words, stream)[0]
    return stream
