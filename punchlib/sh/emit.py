"""Writes a plan as a job: a folder of scripts `ID.sh` and `job.toml`, as `punch run` takes it.

    worker1 … workerN     read their ranges of the input, run the mapped commands, send
    merger1 …             gather up to 16 streams each; only where there are more
    last                  gathers the rest, runs the tail, puts the result

The scripts have the form of docs/scripts.md: each stage in the background, FIFOs in between.
"""

from __future__ import annotations

import hashlib
import shlex
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from punchlib.errors import UsageError
from punchlib.sh.forms import REDUCE, Gather
from punchlib.sh.plan import Command, Plan

#: Streams that one node gathers; GNU sort merges so many without temporary files.
FAN_IN = 16
#: Bytes; further than any object goes: readers clamp a range to the object.
_END = 10**15
_PIDS = 'pids_to_kill="${!} ${pids_to_kill}"'
#: Fails at a NUL: grep and rev treat what follows it otherwise, in a piece as in the whole.
_NO_NUL = (
    r"sed '/\x00/{s/^.*$/the input holds a NUL byte, after which this command goes by other rules:"
    r' say grep -a, or put tr -d "\\000" before it/;w /dev/stderr'
    "\nQ3\n}'"
)


@dataclass(frozen=True)
class Input:
    """One object of the job's input.

    Attributes:
        key: in the bucket.
        size: bytes.
    """

    key: str
    size: int


@dataclass
class _Script:
    id: str
    folder: str
    fifos: list[str] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)

    def fifo(self) -> str:
        self.fifos.append(f"{self.folder}#fifo{len(self.fifos) + 1}")
        return f'"{self.fifos[-1]}"'

    def through(self, source: str, command: str) -> str:
        out = self.fifo()
        self.stages.append(f"<{source} {command} >{out}")
        return out

    def text(self, comment: str) -> str:
        pashlib = [f"/opt/pashlib {' '.join(self.streams)}"] if self.streams else []
        lines = [
            "#!/bin/bash",
            *(f"# {line}" for line in comment.splitlines()),
            "export PATH=$PATH:runtime",
            "export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:runtime/lib",
            "export LC_ALL=C",
            f"mkdir -p {self.folder}",
            "",
            "rm_pash_fifos() {",
            *(f'{{ rm -f "{f}" ; }}' for f in self.fifos),
            ":",
            "}",
            "mkfifo_pash_fifos() {",
            *(f'{{ mkfifo "{f}" ; }}' for f in self.fifos),
            ":",
            "}",
            "rm_pash_fifos",
            "mkfifo_pash_fifos",
            'pids_to_kill=""',
        ]
        for command in [*self.stages, *pashlib]:
            lines += [f"{{ {command} & }}", _PIDS]
        lines += [
            "source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}",
            "rm_pash_fifos",
            '( exit "${internal_exec_status}" )',
            "",
        ]
        return "\n".join(lines)


_Part = tuple[_Script, str]


class Emitter:
    """One job in the making.

    Args:
        plan: what runs where.
        width: workers; ignored where the plan has none.
        inputs: by name, as the plan has them.
        output: the key of the result.
        token: makes the job's names its own.
    """

    def __init__(
        self, plan: Plan, width: int, inputs: Mapping[str, Input], output: str, token: str
    ) -> None:
        self._plan = plan
        self._width = width
        self._inputs = inputs
        self._output = output
        self._token = token
        self._folder = f"/tmp/pash_sh/{hashlib.sha256(token.encode()).hexdigest()[:32]}/"
        self._scripts: list[_Script] = []
        self._connections = 0
        self._build()

    def write(self, folder: Path, comment: str) -> None:
        """Writes the job.

        Args:
            folder: where to; it is made.
            comment: stands at the top of each script.

        Raises:
            UsageError: it cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            places = []
            for script in self._scripts:
                text = script.text(comment).encode(errors="surrogateescape")
                (folder / f"{script.id}.sh").write_bytes(text)
                place = "ec2" if script.id == "last" else "lambda"
                places.append(f'[nodes.{script.id}]\nplace = "{place}"\n')
            (folder / "job.toml").write_text("\n".join(places))
        except OSError as error:
            raise UsageError(f"{folder} cannot be written: {error.strerror}") from error

    def _build(self) -> None:
        plan = self._plan
        if plan.mapped:
            parts = [self._worker(number) for number in range(self._width)]
            merger = 0
            while len(parts) > FAN_IN:
                merged = []
                for left in range(0, len(parts), FAN_IN):
                    merger += 1
                    node = self._script(f"merger{merger}")
                    merged.append((node, self._gathered(node, parts[left : left + FAN_IN])))
                parts = merged
            last = self._script("last")
            stream = self._gathered(last, parts)
        else:
            last = self._script("last")
            stream = self._whole_input(last)
        for command in plan.tail:
            stream = self._ran(last, stream, command)
        last.stages.append(
            f"python3.9 aws/s3-put-object.py {shlex.quote(self._output)} {stream} $1"
        )

    def _script(self, id_: str) -> _Script:
        self._scripts.append(_Script(id_, self._folder))
        return self._scripts[-1]

    def _link(self, sender: _Script, source: str, receiver: _Script) -> str:
        self._connections += 1
        key = uuid.uuid5(uuid.NAMESPACE_OID, f"{self._token}/{self._connections}")
        arrived, out = receiver.fifo(), receiver.fifo()
        sender.streams.append(f"send*{key}*0*1*{source.strip(chr(34))}")
        receiver.streams.append(f"recv*{key}*1*0*{arrived.strip(chr(34))}")
        receiver.stages.append(f"runtime/dgsh-tee -i {arrived} -o {out} -I -b 5M")
        return out

    def _worker(self, number: int) -> _Part:
        node = self._script(f"worker{number + 1}")
        begin, ranges = self._ranges(number)
        fifos = []
        for key, first, last in ranges:
            fifos.append(node.fifo())
            node.stages.append(
                f"python3.9 aws/s3-shard-reader.py {shlex.quote(key)} {fifos[-1]}"
                f" bytes={first}-{last} shard={number} num_shards={self._width}"
            )
        stream = _concatenated(node, fifos)
        for command in self._plan.mapped:
            if command.text_only:
                stream = node.through(stream, _NO_NUL)
            if command.primed and begin:
                # The newline before our first line, whose image is then taken off again.
                stream = node.through(stream, """bash -c 'printf "\\n"; exec cat'""")
                stream = node.through(stream, _shell(command))
                stream = node.through(stream, "tail -c +2")
            else:
                stream = node.through(stream, _shell(command))
        return node, stream

    def _ranges(self, number: int) -> tuple[int, list[tuple[str, int, int]]]:
        """Where this worker's piece of the whole input begins, and its ranges of the objects."""
        objects = [self._inputs[name] for name in self._plan.inputs or ()]
        total = sum(o.size for o in objects)
        begin = number * total // self._width
        end = (number + 1) * total // self._width
        found, at = [], 0
        for obj in objects:
            first, stop = max(begin - at, 0), min(end - at, obj.size)
            if first < stop:
                found.append((obj.key, first, _END if stop == obj.size else stop - 1))
            at += obj.size
        # An empty range, so that the worker has an input.
        return begin, found or [(objects[0].key, 1, 0)]

    def _gathered(self, node: _Script, parts: Sequence[_Part]) -> str:
        fifos = [self._link(sender, source, node) for sender, source in parts]
        gather: Gather = self._plan.gather
        if gather.merges and len(fifos) > 1:
            out = node.fifo()
            node.stages.append(f"{shlex.join(gather.words)} {' '.join(fifos)} >{out}")
            stream = out
        else:
            stream = _concatenated(node, fifos)
            if gather.words and not gather.merges:
                stream = node.through(stream, shlex.join(gather.words))
        for command in self._plan.after:
            stream = node.through(stream, _shell(command))
        return stream

    def _whole_input(self, node: _Script) -> str:
        if self._plan.inputs is None:
            return "/dev/null"
        return _concatenated(node, [self._fetched(node, name) for name in self._plan.inputs])

    def _fetched(self, node: _Script, name: str) -> str:
        out = node.fifo()
        key = shlex.quote(self._inputs[name].key)
        node.stages.append(f"python3.9 aws/s3-get-object.py {key} {out}")
        return out

    def _ran(self, node: _Script, stream: str, command: Command) -> str:
        words = [shlex.quote(word) for word in command.words]
        for index in command.inputs:
            words[index] = self._fetched(node, command.words[index])
        return node.through(stream, _shell(command, words))


def _concatenated(node: _Script, fifos: Sequence[str]) -> str:
    if len(fifos) == 1:
        return fifos[0]
    out = node.fifo()
    # Not `cat`, which opens one after the other: `head` may leave before it opens the last.
    node.stages.append(f"{REDUCE} cat {' '.join(fifos)} >{out}")
    return out


def _shell(command: Command, words: Sequence[str] | None = None) -> str:
    pairs = [f"{name}={shlex.quote(value)}" for name, value in command.env]
    shown = words if words is not None else [shlex.quote(word) for word in command.words]
    return " ".join([*pairs, *shown, *(["2>/dev/null"] if command.quiet else [])])
