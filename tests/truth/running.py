"""Runs one case: its scripts, the blow, and what came of it."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import time
from dataclasses import dataclass, field

from tests.truth.case import Case
from tests.truth.scripts import Place, Scripts
from tests.truth.starting import DEADLINE, Starter
from tests.truth.striking import Striker
from tests.truth.verdict import FACTOR, Ended, Outcome, judge
from tests.truth.world import REPOSITORY, World, mount_disk, nonce, unmount_disk

#: PUNCH_TIMEOUT: a peer that was killed before it came is waited for that long.
PEER_TIME = 40.0 * FACTOR
#: PUNCH_STALL_TIMEOUT: with streams through S3 no kernel tells of a killed peer.
STALL = 40.0 * FACTOR
#: Seconds between two looks whether the time is up.
LOOK = 5.0
BEFORE = b"what was there before\n"


@dataclass
class Run:
    """One run of one case."""

    case: Case
    world: World
    nonce: str = field(default_factory=nonce)

    def __post_init__(self) -> None:
        self.folder = self.world.root / "cases" / self.nonce
        self.disk = self.folder / "disk"
        self.key = f"truth-outputs/{self.nonce}"
        self._done, tell = os.pipe()
        of_run = (self.case, self.world, self.nonce, self.folder, self.disk)
        self._starter = Starter(*of_run, tell)
        self.nodes = self._starter.nodes
        self._striker = Striker(*of_run, self.nodes)

    def outcome(self) -> Outcome:
        """Runs the case to its end; what its scripts left stays only where it is wrong."""
        began = time.monotonic()
        self.folder.mkdir()
        if self.case.before:
            self.world.s3.put_object(Bucket=self.world.bucket, Key=self.key, Body=BEFORE)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, self._done)
            stack.callback(os.close, self._starter.tell)
            in_time = self._run(stack)
        outcome = judge(
            self.case,
            ended=[node.ended or Ended(node.node.name, -1, "still running") for node in self.nodes],
            found=self.object(),
            expected=self.world.expected(self.case.size, self.case.work),
            before=BEFORE if self.case.before else None,
            struck=self._striker.struck,
            in_time=in_time,
            seconds=time.monotonic() - began,
        )
        outcome.key, outcome.folder = self.key, self.folder
        if outcome.good:
            shutil.rmtree(self.folder, ignore_errors=True)
        return outcome

    def object(self) -> bytes | None:
        return read_object(self.world, self.key)

    def _run(self, stack: contextlib.ExitStack) -> bool:
        ask, go = self.folder / "ask", self.folder / "go"
        pipes = []
        for path in (ask, go):
            os.mkfifo(path)
            pipes.append(os.open(path, os.O_RDWR | os.O_NONBLOCK))
            stack.callback(os.close, pipes[-1])
        if self.case.disk != "ok" and self.case.by_hand:
            mount_disk(self.disk, ",nr_inodes=16" if self.case.disk == "no-inodes" else "")
            stack.callback(unmount_disk, self.disk)
        elif self.case.disk != "ok":
            stack.enter_context(self.world.small_lock)
        scripts = Scripts(
            self.case,
            Place(
                fifos=str(self.world.root / "fifos") if self.case.by_hand else "/tmp/pash_truth",
                bomb=self.world.root / "bomb.sh",
                ask=ask,
                go=go,
                python=sys.executable,
                repository=REPOSITORY,
                exports=self._exports(),
            ),
            self.nonce,
            self.world.source(self.case.size),
            self.key,
        )
        self._starter.start(scripts, stack)
        in_time = self._watch(*pipes)
        self._striker.sweep()
        for node in scripts.nodes.values():
            shutil.rmtree(node.folder, ignore_errors=True)
        return in_time

    def _exports(self) -> dict[str, str]:
        values = {
            "PUNCH_TIMEOUT": f"{PEER_TIME:g}",
            "PUNCH_STALL_TIMEOUT": f"{STALL:g}",
            "PUNCH_ROUTES": self.case.routes,
            "PUNCH_SECURITY": self.case.security,
        }
        return {name: value for name, value in values.items() if value}

    def _watch(self, ask: int, go: int) -> bool:
        """Until every node has ended, or the time is up; strikes when the bomb asks for it."""
        deadline = time.monotonic() + DEADLINE
        poll = select.poll()
        poll.register(ask, select.POLLIN)
        poll.register(self._done, select.POLLIN)
        while not all(node.ended for node in self.nodes):
            ready = dict(poll.poll(LOOK * 1000))
            if ask in ready:
                os.read(ask, 100)
                self._striker.strike(go)
            if self._done in ready:
                os.read(self._done, 100)
            if time.monotonic() > deadline:
                self._striker.end_all()
                return False
        return True


def read_object(world: World, key: str) -> bytes | None:
    """The bytes of an object; None where there is none."""
    try:
        return bytes(world.s3.get_object(Bucket=world.bucket, Key=key)["Body"].read())
    except world.s3.exceptions.NoSuchKey:
        return None
