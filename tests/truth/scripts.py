"""The scripts of a case, in the shape of generated ones."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from tests.truth.case import NODES, PROLOGUES, Case

#: The stages that are not ours.
COMMANDS = {
    "sort": ["sort"],
    "grep": ["grep", "-v", "7"],
    "awk": ["awk", "{ print NR % 10, $1 }"],
    "cat": ["cat", "-u"],
    "wrap": ["tr", "0-4", "5-9"],
    # Far less memory than input: it works in files in TMPDIR.
    "spill": ["sort", "-S", "20k"],
}
PIDS = 'pids_to_kill="${!} ${pids_to_kill}"'
#: What stands around a stage, and starts it. {cmd}: a simple command with its redirections;
#: {quoted}: the same as one word; {n}: its number.
CONSTRUCTS = {
    "braces": "{{ {cmd} & }}",
    "subshell": "( {cmd} ) &",
    "nested": '( ( {cmd} ); exit "$?" ) &',
    "group": "{{ {cmd}; }} &",
    "function": 'stage{n}() {{ {cmd}; }}; stage{n} "$@" &',
    "bash -c": "bash -c {quoted} &",
    "sh -c": "sh -c {quoted} &",
    "timeout": "timeout 60 {cmd} &",
    "nohup": "nohup {cmd} &",
    "env": "env TRUTH=1 {cmd} &",
    "exec": "( exec {cmd} ) &",
    "setsid": "setsid {cmd} &",
    "pipe-first": "{cmd} | cat >/dev/null &",
    "pipe-last": "true | {cmd} &",
    "procsub": "cat <( {cmd} ) >/dev/null &",
    "stdin-closed": "{cmd} 0<&- &",
    "stdout-closed": "{cmd} 1>&- &",
    "stderr-closed": "{cmd} 2>&- &",
}


@dataclass
class Element:
    """One stage.

    Attributes:
        role: as in `case.VICTIMS`.
        command: a simple command, with its redirections.
        inputs, outputs: the FIFOs that it opens.
        argv: of a stage that is not ours; empty for a tool.
        tool: the end of its program's name; "" for a stage that is not ours.
    """

    role: str
    command: str
    inputs: list[str]
    outputs: list[str]
    argv: list[str] = field(default_factory=list)
    tool: str = ""

    def reads(self, old: str, new: str) -> None:
        """Takes its input from another FIFO. A path always ends a quoted word."""
        if old not in self.inputs:
            return
        self.command = self.command.replace(f"{old}'", f"{new}'")
        self.inputs = [new if f == old else f for f in self.inputs]
        self.argv = [new if f == old else f for f in self.argv]


@dataclass
class Node:
    """One script.

    Attributes:
        name: "a", "b", …
        id: its name in the bucket.
        folder: of its FIFOs.
    """

    name: str
    id: str
    folder: str
    elements: list[Element] = field(default_factory=list)
    fifos: list[str] = field(default_factory=list)
    sends: list[tuple[str, str]] = field(default_factory=list)
    receives: list[tuple[str, str]] = field(default_factory=list)

    def fifo(self) -> str:
        self.fifos.append(f"{self.folder}/#fifo{len(self.fifos) + 2}")
        return self.fifos[-1]

    def find(self, role: str) -> Element:
        return next(e for e in self.elements if e.role == role)


@dataclass(frozen=True)
class Place:
    """Where scripts run.

    Attributes:
        fifos: the folder for each node's folder of FIFOs.
        bomb: the file of bomb.sh.
        ask, go: the bomb's own FIFOs.
        python, repository: for an old peer.
        exports: variables that the script sets.
    """

    fifos: str
    bomb: Path
    ask: Path
    go: Path
    python: str
    repository: Path
    exports: Mapping[str, str]


class Scripts:
    """The scripts of one run of a case.

    Args:
        nonce: hexadecimal; no other run has it.
        source, output: keys in the bucket.

    Attributes:
        nodes: by name.
    """

    def __init__(self, case: Case, place: Place, nonce: str, source: str, output: str) -> None:
        self._case = case
        self._place = place
        self._nonce = nonce
        self._source = source
        self.nodes = {
            name: Node(name, f"truth-{nonce}-{name}", f"{place.fifos}/{nonce}{name}")
            for name in NODES[case.topology]
        }
        last, fifo = self._flow()
        put = f'python3.9 "$TOP"/aws/s3-put-object.py {output} {quote(fifo)} $1'
        last.elements.append(Element("put", put, [fifo], [], tool="s3-put-object.py"))
        for node in self.nodes.values():
            if node.sends or node.receives:
                node.elements.append(self._pashlib(node))
        if case.victim != "none" and not case.quits:
            self._arm(self.nodes[case.node])

    def texts(self) -> dict[str, str]:
        """Node -> text."""
        return {node.name: self._text(node) for node in self.nodes.values()}

    def _flow(self) -> tuple[Node, str]:
        """Everything up to the put, and where its input is."""
        case, a = self._case, self.nodes["a"]
        fifo = self._read(a)
        if case.topology == "alone":
            return a, self._work(a, self._tee(a, fifo))
        b = self.nodes["b"]
        if case.topology == "hop":
            if case.work_at == "a":
                fifo = self._work(a, self._tee(a, fifo))
            fifo = self._tee(b, self._link(a, fifo, b))
            return b, fifo if case.work_at == "a" else self._work(b, fifo)
        if case.topology == "loop":
            fifo = self._link(a, self._tee(a, fifo), b)
            fifo = self._link(b, self._work(b, self._tee(b, fifo)), a)
            return a, self._tee(a, fifo)
        return self._fan(a, self._tee(a, fifo))

    def _fan(self, a: Node, fifo: str) -> tuple[Node, str]:
        parts = [a.fifo(), a.fifo()]
        words = " ".join(map(quote, [fifo, "1000000", *parts]))
        command = f'"$TOP"/runtime/r_split -r {words}'
        a.elements.append(Element("split", command, [fifo], parts, tool="r_split"))
        d = self.nodes["d"]
        merged = []
        for name, part in zip("bc", parts, strict=True):
            worker = self.nodes[name]
            fifo = self._work(worker, self._tee(worker, self._link(a, part, worker)))
            merged.append(self._tee(d, self._link(worker, fifo, d)))
        out = d.fifo()
        argv = ["sort", "-m", *merged]
        d.elements.append(self._foreign(argv, merged, [], out))
        return d, out

    def _read(self, node: Node) -> str:
        out = node.fifo()
        tool, words = "s3-get-object.py", ""
        if self._case.reader == "shard":
            tool = "s3-shard-reader.py"
            words = f" bytes=0-{self._case.size - 1} shard=0 num_shards=1 job_uid=truth debug=True"
        command = f'python3.9 "$TOP"/aws/{tool} {self._source} {quote(out)}{words}'
        node.elements.append(Element("reader", command, [], [out], tool=tool))
        return out

    def _tee(self, node: Node, source: str) -> str:
        if self._case.tee == "none":
            return source
        out = node.fifo()
        how = "-I -b 5M" if self._case.tee == "plain" else "-I -m 2K -b 1K"
        command = f'"$TOP"/runtime/dgsh-tee -i {quote(source)} -o {quote(out)} {how}'
        node.elements.append(Element("tee", command, [source], [out], tool="dgsh-tee"))
        return out

    def _work(self, node: Node, source: str) -> str:
        argv = COMMANDS[self._case.work]
        out = node.fifo()
        if self._case.work != "wrap":
            node.elements.append(self._foreign(argv, [], [source], out))
            return out
        framed = node.fifo()
        inner = self._quitting(argv) if self._quits(node) else " ".join(map(quote, argv))
        command = f'"$TOP"/runtime/r_wrap bash -c {quote(inner)} <{quote(source)} >{quote(framed)}'
        node.elements.append(Element("stage", command, [source], [framed], argv, "r_wrap"))
        command = f'"$TOP"/runtime/r_unwrap <{quote(framed)} >{quote(out)}'
        node.elements.append(Element("unwrap", command, [framed], [out], tool="r_unwrap"))
        return out

    def _foreign(self, argv: list[str], named: list[str], stdin: list[str], out: str) -> Element:
        """A stage that is not ours; `named` FIFOs stand in its arguments."""
        command = " ".join(map(quote, argv))
        node = next(n for n in self.nodes.values() if out in n.fifos)
        redirections = "".join(f" <{quote(f)}" for f in stdin) + f" >{quote(out)}"
        if self._quits(node):
            command = f"bash -c {quote(self._quitting(argv))}"
            if self._case.moment == "before":
                redirections = ""
        return Element("stage", command + redirections, named + stdin, [out], argv)

    def _quits(self, node: Node) -> bool:
        return bool(self._case.quits) and node.name == self._case.node

    def _quitting(self, argv: list[str]) -> str:
        """The command, which ends by itself after some bytes of its output or before the first."""
        status = self._case.quits
        if self._case.moment == "before":
            return f"exit {status}"
        size = self._bytes()
        return f"{' '.join(map(quote, argv))} | head -c {size}; exit {status}"

    def _bytes(self) -> int:
        return round(self._case.at * self._case.size)

    def _link(self, sender: Node, fifo: str, receiver: Node) -> str:
        name = f"{self._nonce}/{sender.name}{receiver.name}"
        key = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
        out = receiver.fifo()
        sender.sends.append((key, fifo))
        receiver.receives.append((key, out))
        return out

    def _pashlib(self, node: Node) -> Element:
        program = '"$TOP"/runtime/pashlib' if self._case.by_hand else "/opt/pashlib"
        if self._case.peer == f"v1-{node.name}":
            python, repository = quote(self._place.python), quote(str(self._place.repository))
            program = f"env PYTHONPATH={repository} {python} -P -m tests.support.old_peer ec2"
        words = [f"recv*{key}*1*0*{fifo}" for key, fifo in node.receives]
        words += [f"send*{key}*0*1*{fifo}" for key, fifo in node.sends]
        command = " ".join([program, *map(quote, words)])
        inputs, outputs = [f for _, f in node.sends], [f for _, f in node.receives]
        return Element("pashlib", command, inputs, outputs, tool="pashlib")

    def _arm(self, node: Node) -> None:
        """Puts the bomb into one of the node's FIFOs."""
        edge = node.fifos[self._case.edge % len(node.fifos)]
        behind = node.fifo()
        for element in node.elements:
            element.reads(edge, behind)
        place = self._place
        moment = "eof" if self._case.moment == "commit" else self._case.moment
        words = [str(place.bomb), str(place.ask), str(place.go), moment, str(self._bytes())]
        command = f"bash {' '.join(map(quote, words))} <{quote(edge)} >{quote(behind)}"
        node.elements.append(Element("bomb", command, [edge], [behind]))

    def _text(self, node: Node) -> str:
        case = self._case
        own = node.name == case.node
        fifos = " ".join(map(quote, node.fifos))
        lines = [
            "#!/bin/bash",
            "export TOP=$PWD",
            'export PATH="$PATH:$TOP/runtime"',
            'export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}:$TOP/runtime/lib"',
            *(f"export {name}={quote(value)}" for name, value in self._place.exports.items()),
        ]
        if case.disk != "ok" and not case.by_hand:
            lines.append("{ cat /dev/zero >/tmp/.full; } 2>/dev/null || true")
        if own:
            lines += [PROLOGUES[name] for name in case.prologue]
        lines += [
            f"command mkdir -p {quote(node.folder)}",
            f"command rm -f {fifos}",
            f"mkfifo {fifos}",
            'pids_to_kill=""',
        ]
        for number, element in enumerate(node.elements):
            around = case.construct if own and element.role == case.construct_on else "braces"
            command = element.command
            started = CONSTRUCTS[around].format(cmd=command, quoted=quote(command), n=number)
            lines += [started, PIDS]
        if case.late and own:
            lines.append(f"command sleep {case.late}")
        lines += [
            'source "$TOP"/runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}',
            f"command rm -f {fifos}",
            '( exit "${internal_exec_status}" )',
            "",
        ]
        return "\n".join(lines)
