"""One case of the drawn suite, as data: what runs how, and what goes wrong in it where.

A case is printed and replayed as JSON (`TRUTH_CASE='{…}' make truth`). Nothing of a case lives in
code paths: `scripts` writes its scripts, `starting` starts them, `striking` strikes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

#: How a node is started. "hand": `bash SCRIPT FOLDER` by the test itself; "-state" with
#: PUNCH_STATE_DIR, "-alone" without an engine. "ec2", "lambda": by a handler that commits by
#: itself. "job": by the job runner, which commits.
WAYS = {
    "hand": 44,
    "hand-state": 10,
    "hand-alone": 3,
    "hand-state-alone": 2,
    "ec2": 24,
    "lambda": 6,
    "job": 6,
}
#: alone: one script. hop: script a streams to script b. loop: script a streams to b and gets it
#: back. fan: a splitter a, two workers b and c, a merger d.
TOPOLOGIES = {"alone": 30, "hop": 45, "loop": 13, "fan": 6}
NODES = {"alone": "a", "hop": "ab", "loop": "ab", "fan": "abcd"}
READERS = {"get": 2, "shard": 1}
WORKS = {"sort": 6, "grep": 2, "awk": 2, "cat": 2, "wrap": 2, "spill": 1}
TEES = {"none": 3, "plain": 4, "spill": 3}
CONSTRUCTS = {
    "braces": 12,
    "subshell": 4,
    "nested": 3,
    "group": 4,
    "function": 4,
    "bash -c": 4,
    "sh -c": 2,
    "timeout": 4,
    "nohup": 3,
    "env": 2,
    "exec": 3,
    "setsid": 2,
    "pipe-first": 3,
    "pipe-last": 3,
    "procsub": 4,
    "stdin-closed": 3,
    "stdout-closed": 2,
    "stderr-closed": 2,
}
PROLOGUES = {
    "IFS=/": "IFS=/",
    "IFS=": "IFS=",
    "IFS=\\n\\t": "IFS=$'\\n\\t'",
    "IFS=digits": "IFS=0123456789",
    "set -e": "set -e",
    "set -u": "set -u",
    "set -f": "set -f",
    "set -C": "set -C",
    "set -m": "set -m",
    "set -a": "set -a",
    "pipefail": "set -o pipefail",
    "posix": "set -o posix",
    "nullglob": "shopt -s nullglob",
    "failglob": "shopt -s failglob",
    "shopt": "shopt -s extglob dotglob nocasematch inherit_errexit lastpipe",
    "aliases": "shopt -s expand_aliases\nalias kill=false wait=false printf=false rm='rm -i'"
    " read=false local=false mkdir=false source=. sleep=false",
    "trap EXIT": "trap 'echo bye >&2' EXIT",
    "trap ERR": "set -E; trap 'echo err >&2' ERR",
    "trap DEBUG": "set -T; trap ': debug' DEBUG",
    "trap CHLD": "trap ': child' CHLD",
    "trap PIPE": "trap '' PIPE",
    "trap TERM": "trap '' TERM",
    "LC_ALL=C": "export LC_ALL=C",
    "LC_ALL=POSIX": "export LC_ALL=POSIX",
    "LC_ALL=nowhere": "export LC_ALL=xx_YY.UTF-8 2>/dev/null",
    "umask": "umask 077",
    "cd": "cd /",
    "ulimit -n": "ulimit -n 96",
    "ulimit -f": "ulimit -f 0",
    "stdin closed": "exec 0<&-",
    "stdout closed": "exec 1>&-",
    "stderr closed": "exec 2>&-",
    "readonly": "readonly pid=7 status=7 line=7 text=7",
}
#: A process of script `node`; "X-worker" is the engine's process that works for the client X.
VICTIMS = {
    "none": 5,
    "stage": 14,
    "tee": 8,
    "split": 40,
    "wrap": 8,
    "unwrap": 6,
    "reader": 5,
    "reader-worker": 4,
    "put": 5,
    "put-worker": 4,
    "pashlib": 8,
    "pashlib-worker": 7,
    "engine": 2,
    "bash": 5,
    "group": 5,
    "committer": 12,
    "committer-worker": 12,
}
SIGNALS = {"KILL": 8, "TERM": 4, "INT": 2, "HUP": 2, "PIPE": 2, "SEGV": 3, "STOP": 3} | {
    "exits 3": 5,
    "exits 1": 3,
}
#: before: it is there, its input has not been opened. at: after `at` of the bytes. eof: after its
#: end of file. commit: while the upload is being completed.
MOMENTS = {"before": 2, "at": 6, "eof": 4, "commit": 2}
POSITIONS = (0.0, 0.001, 0.1, 0.5, 0.9, 0.999, 1.0)
#: full: from the start on. fills: when the fault strikes.
DISKS = {"ok": 20, "state-full": 2, "state-fills": 2, "tmp-full": 2, "no-inodes": 1}
PEERS = {"v2": 30, "v1-a": 1, "v1-b": 1}
SIZES = {0: 2, 1: 1, 300: 3, 4_096: 3, 65_536: 4, 70_000: 3, 300_000: 6, 5_000_000: 1}
#: PUNCH_ROUTES; "" leaves the default.
ROUTES = {"": 4, "host": 12, "s3": 1}
SECURITIES = {"": 3, "encrypted": 1, "authenticated": 2}
#: Seconds between the start of the last stage and the wait script.
LATENESS = {0.0: 6, 0.05: 2, 0.4: 1}


@dataclass(frozen=True)
class Case:
    """One case; the tables above say what each value means.

    Attributes:
        construct_on: the role of the element that the construct is put around, in script `node`.
        node: the script that the victim, the construct and the prologue belong to.
        edge: which FIFO of script `node` the fault is timed by, counted modulo their number.
        at: how much of the stream has passed, 0…1.
        delay: seconds from that moment to the blow.
        before: an object of the output's name is there already.
        relative: the script is named by a relative path.
    """

    way: str = "hand"
    topology: str = "alone"
    reader: str = "get"
    work: str = "sort"
    work_at: str = "a"
    tee: str = "none"
    construct: str = "braces"
    construct_on: str = "stage"
    prologue: tuple[str, ...] = ()
    victim: str = "none"
    node: str = "a"
    signal: str = "KILL"
    moment: str = "at"
    edge: int = 0
    at: float = 0.5
    delay: float = 0.0
    late: float = 0.0
    disk: str = "ok"
    peer: str = "v2"
    size: int = 300
    before: bool = False
    routes: str = ""
    security: str = ""
    relative: bool = False

    def __str__(self) -> str:
        """Only what differs from the plain case, as JSON."""
        plain = asdict(Case())
        return json.dumps({k: v for k, v in asdict(self).items() if v != plain[k]})

    @classmethod
    def parse(cls, text: str) -> Case:
        data: dict[str, Any] = json.loads(text)
        data["prologue"] = tuple(data.get("prologue", ()))
        return cls(**data)

    @property
    def by_hand(self) -> bool:
        return self.way.startswith("hand")

    @property
    def engine(self) -> bool:
        return not self.way.endswith("alone")

    @property
    def quits(self) -> int:
        """The status that the victim exits with by itself; 0 when it is struck by a signal."""
        return int(self.signal.split()[1]) if self.signal.startswith("exits") else 0

    @property
    def put_node(self) -> str:
        return {"alone": "a", "hop": "b", "loop": "a", "fan": "d"}[self.topology]

    def roles(self, node: str) -> set[str]:
        """What script `node` consists of."""
        has = {"pashlib"} if self.topology != "alone" else set()
        if node == "a":
            has.add("reader")
        if node == self.put_node:
            has.add("put")
        if self.topology == "fan":
            has |= {"a": {"split"}, "d": {"stage"}}.get(node, {"stage"})
        elif node == ({"alone": "a", "loop": "b"}.get(self.topology) or self.work_at):
            has.add("stage")
            if self.work == "wrap":
                has |= {"wrap", "unwrap"}
        tees = {"hop": "ab" if self.work_at == "a" else "b"}.get(self.topology, "abcd")
        if self.tee != "none" and node in tees:
            has.add("tee")
        return has


def possible(case: Case) -> bool:
    """Whether the case says something: it exists, and bash could know of the fault in it."""
    return all(rule(case) for rule in _RULES)


def _victim_is_there(case: Case) -> bool:
    client, _, worker = case.victim.partition("-")
    if case.node not in NODES[case.topology]:
        return False
    if worker and not case.engine:
        return False
    if case.victim == "engine":
        return case.by_hand and case.engine
    if client == "committer":
        # Only the wait script has a process for it.
        return case.by_hand and case.node == case.put_node
    return client in {"none", "bash", "group"} | case.roles(case.node)


def _blow_fits(case: Case) -> bool:
    if case.quits and (case.victim != "stage" or case.moment in ("eof", "commit")):
        return False
    if case.victim == "stage" and case.signal == "PIPE":
        # From outside: the wait script takes it for a stage whose reader has left.
        return False
    if case.quits == 1 and case.work == "wrap":
        return False  # harmless by r_wrap's own rule: it could be a grep
    committing = case.victim.startswith("committer")
    if committing != (case.moment == "commit"):
        may = case.victim in ("bash", "group", "engine") and case.by_hand
        return case.moment == "commit" and may and case.node == case.put_node
    return True


def _construct_fits(case: Case) -> bool:
    role = case.construct_on
    if role == "wrap" or role not in case.roles(case.node):
        return False
    foreign = role == "stage" and case.work != "wrap"
    if case.construct in ("stdin-closed", "stdout-closed"):
        return role not in ("stage", "unwrap")
    if case.construct == "procsub":
        return not foreign  # bash tells nobody how a foreign one ended
    if case.construct == "pipe-first":
        return not foreign or "pipefail" in case.prologue
    return True


def _disk_fits(case: Case) -> bool:
    if case.disk == "ok":
        return True
    if case.disk == "state-fills" and (case.victim == "none" or case.quits):
        return False  # it fills when the blow falls
    if case.disk in ("state-fills", "no-inodes"):
        return case.by_hand
    return case.by_hand or case.way == "ec2"


def _peer_fits(case: Case) -> bool:
    # An old peer dials an address; it knows neither S3 nor keys.
    return case.peer == "v2" or (
        case.topology == "hop"
        and case.by_hand
        and case.security == ""
        and case.routes != "s3"
        and not (case.victim.startswith("pashlib") and case.node == case.peer[-1])
        and not (case.construct_on == "pashlib" and case.node == case.peer[-1])
    )


def _work_fits(case: Case) -> bool:
    if case.topology == "fan" and case.work != "sort":
        return False
    if case.topology == "hop":
        return case.work_at in "ab"
    return case.work_at == "a"


def _routes_fit(case: Case) -> bool:
    # A Lambda has no address that a peer could call.
    return case.routes != "host" or case.way not in ("lambda", "job")


_RULES = (
    _routes_fit,
    _victim_is_there,
    _blow_fits,
    _construct_fits,
    _disk_fits,
    _peer_fits,
    _work_fits,
)


def draw(seed: str, number: int) -> Case:
    """The case of this number; the same for the same seed."""
    rng = random.Random(f"{seed}/{number}")

    def one(table: dict[Any, int]) -> Any:
        return rng.choices(list(table), list(table.values()))[0]

    for _ in range(2000):
        topology = one(TOPOLOGIES)
        node = rng.choice(NODES[topology])
        roles = ["stage", "reader", "put", "pashlib", "tee", "split", "unwrap"]
        case = Case(
            way=one(WAYS),
            topology=topology,
            reader=one(READERS),
            work=one(WORKS),
            work_at=rng.choice("ab"),
            tee=one(TEES),
            construct=one(CONSTRUCTS),
            construct_on=rng.choice(roles),
            prologue=tuple(rng.sample(list(PROLOGUES), rng.choice((0, 0, 1, 1, 2, 3)))),
            victim=one(VICTIMS),
            node=node,
            signal=one(SIGNALS),
            moment=one(MOMENTS),
            edge=rng.randrange(4),
            at=rng.choice((*POSITIONS, rng.random())),
            delay=rng.choice((0.0, 0.0, 0.01, 0.05)),
            late=one(LATENESS),
            disk=one(DISKS),
            peer=one(PEERS),
            size=one(SIZES),
            before=rng.random() < 0.3,
            routes=one(ROUTES),
            security=one(SECURITIES),
            relative=rng.random() < 0.2,
        )
        if possible(case):
            return case
    raise AssertionError("no possible case was drawn")


def simpler(case: Case) -> Iterator[Case]:
    """Possible cases that differ from `case` in one value, which is the plain one."""
    plain = Case()
    for field in fields(Case):
        value, default = getattr(case, field.name), getattr(plain, field.name)
        if field.name == "prologue":
            for name in case.prologue:
                rest = tuple(p for p in case.prologue if p != name)
                if possible(fewer := replace(case, prologue=rest)):
                    yield fewer
        elif value != default and possible(one := replace(case, **{field.name: default})):
            yield one
