"""An old (v1) program at the other end, with the engine and without."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from contextlib import ExitStack
from pathlib import Path

from tests.support.pashlib_rig import PATIENCE, End, World
from tests.support.stream_rig import Rig, digest, payload

ROOT = Path(__file__).parents[3]


def test_the_bytes_arrive(tmp_path: Path, world: World, mode: str) -> None:
    """Both ways at the same time, with the old program there first.

    When ours is, the old one's only dial may come before we know of it (docs/nat-traversal.md).
    """
    rigs = {"send": Rig(tmp_path, payload(300_000, 1)), "recv": Rig(tmp_path, payload(300_000, 2))}
    labels = {"send": "0*1", "recv": "1*0"}
    with ExitStack() as stack:
        running = []
        for verb, other in (("send", "recv"), ("recv", "send")):
            rig, key = rigs[verb], uuid.uuid4().hex
            stack.enter_context(rig.stages())
            path = {"send": rig.source, "recv": rig.sink}
            old = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.support.old_peer", "ec2"),
                    f"{other}*{key}*{labels[other]}*{path[other]}",
                ],
                cwd=ROOT,
                env=os.environ | dict(world.env),
                stderr=subprocess.PIPE,
            )
            stack.enter_context(old)
            stack.callback(old.kill)
            assert old.stderr is not None
            assert old.stderr.readline().startswith(b"Get local_addr"), "it has not registered"
            new = End(world, mode, tmp_path / verb, [f"{verb}*{key}*{labels[verb]}*{path[verb]}"])
            stack.callback(new.kill)
            running.append((new, old))
        for new, old in running:
            assert new.wait() == 0, new
            assert any("the peer speaks the old wire (v1)" in line for line in new.said), new
            assert old.wait(PATIENCE) == 0
    for rig in rigs.values():
        assert digest(rig.got) == digest(rig.data)
