"""Writes a plan as a job: a folder of scripts `ID.sh` and `job.toml`, as `punch run` takes it.

    worker1 … workerN     read their ranges of the input, run the mapped commands, send
    merger1 …             gather up to 16 streams each; only where there are more
    last                  gathers the rest, runs the tail, sends the result to whoever runs the
                          job, or puts it into the bucket. There is none where the workers can put
                          their pieces there themselves: the result is one after the other

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
from punchlib.jobs.placement import Place
from punchlib.runtime.s3_several import Part
from punchlib.sh.forms import MAY_SAY_ONE, REDUCE, Gather, refusing
from punchlib.sh.pieces import Input, pieces, whole
from punchlib.sh.plan import Command, Plan, Turn

#: Streams that one node gathers; GNU sort merges so many without temporary files.
FAN_IN = 16
_PIDS = 'pids_to_kill="${!} ${pids_to_kill}"'
#: Fails at a NUL: grep and rev treat what follows it otherwise, in a piece as in the whole.
_NO_NUL = shlex.join(
    refusing(
        r"\x00",
        "the input holds a NUL byte, after which this command goes by other rules:"
        r' say grep -a, or put tr -d "\\000" before it',
    )
)


@dataclass
class _Script:
    id: str
    folder: str
    fifos: list[str] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)

    def fifo(self) -> str:
        self.fifos.append(f"{self.folder}#fifo{len(self.fifos) + 1}")
        return f'"{self.fifos[-1]}"'

    def made_of(self, command: str) -> str:
        """A stage; the FIFO that it writes."""
        out = self.fifo()
        self.stages.append(f"{command} >{out}")
        return out

    def through(self, source: str, command: str) -> str:
        """One that reads stdin."""
        return self.made_of(f"<{source} {command}")

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
            *self.functions,
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


#: Ends a loop at the first pipeline that failed, as the wait script judges stages.
_JUDGE = """\
judge() {
local -a was may
local n
IFS=" " read -ra was <<<"$1"
IFS=" " read -ra may <<<"$2"
for n in "${!was[@]}"; do
case ${was[n]} in 0 | 141 | "${may[n]}") ;; *) exit "${was[n]}" ;; esac
done
}"""
_Part = tuple[_Script, str]


class Emitter:
    """One job in the making.

    Args:
        plan: what runs where.
        width: workers, of which there are fewer where there are fewer pieces, and none where the
            plan has none.
        inputs: by name, as the plan has them.
        output: the key of the result; "" streams it to whoever runs the job.
        token: makes the job's names its own.
        last: where the last node runs.
    """

    def __init__(
        self,
        plan: Plan,
        width: int,
        inputs: Mapping[str, Input],
        output: str,
        token: str,
        last: Place = "lambda",
    ) -> None:
        self._plan = plan
        self._inputs = inputs
        self._pieces = pieces(plan, width, inputs)
        self._output = output
        self._token = token
        self._last = last
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
                place = self._last if script.id == "last" else "lambda"
                places.append(f'[nodes.{script.id}]\nplace = "{place}"\n')
            if not self._output:
                places.append(f'[result]\nconnection = "{self._key("result")}"\n')
            (folder / "job.toml").write_text("\n".join(places))
        except OSError as error:
            raise UsageError(f"{folder} cannot be written: {error.strerror}") from error

    def _build(self) -> None:
        plan = self._plan
        if plan.has_workers:
            parts = [self._worker(number) for number in range(len(self._pieces))]
            if plan.puts_pieces:
                self._put_pieces(parts)
                return
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
        if self._output:
            last.stages.append(self._put(stream))
        else:
            last.streams.append(_sending(self._key("result"), stream))

    def _put(self, stream: str) -> str:
        return f"python3.9 aws/s3-put-object.py {shlex.quote(self._output)} {stream} $1"

    def _put_pieces(self, parts: Sequence[_Part]) -> None:
        """Each worker puts its piece into the object, and tells the next of it."""
        if len(parts) == 1:
            node, stream = parts[0]
            node.stages.append(self._put(stream))
            return
        key, before = shlex.quote(self._output), "''"
        for number, (node, stream) in enumerate(parts, 1):
            after = node.fifo() if number < len(parts) else "''"
            piece = f"{number}/{len(parts)}"
            node.stages.append(
                f"python3.9 aws/s3-put-piece.py {key} {stream} {piece} {before} {after}"
            )
            if number < len(parts):
                before = self._link(node, after, parts[number][0])

    def _script(self, id_: str) -> _Script:
        self._scripts.append(_Script(id_, self._folder))
        return self._scripts[-1]

    def _key(self, name: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._token}/{name}"))

    def _link(self, sender: _Script, source: str, receiver: _Script) -> str:
        self._connections += 1
        key = self._key(str(self._connections))
        arrived, out = receiver.fifo(), receiver.fifo()
        sender.streams.append(_sending(key, source))
        receiver.streams.append(f"recv*{key}*1*0*{arrived.strip(chr(34))}")
        receiver.stages.append(f"runtime/dgsh-tee -i {arrived} -o {out} -I -b 5M")
        return out

    def _worker(self, number: int) -> _Part:
        node = self._script(f"worker{number + 1}")
        piece = self._pieces[number]
        if piece.turns:
            stream = self._loop(node, piece.turns)
        else:
            stream = _read(node, "whole" if self._plan.unpack else "lines", piece.parts)
        if self._plan.unpack and piece.parts:
            stream = node.through(stream, shlex.join(self._plan.unpack))
        last = number == len(self._pieces) - 1
        if self._plan.mapped and not self._plan.cuts_lines and not last:
            # Who squeezes on the other pieces believes in a line before them.
            primed = number == 0 and any(command.primed for command in self._plan.mapped)
            stream = node.made_of(f"{REDUCE} {'some-lines' if primed else 'lines'} {stream}")
        for command in self._plan.mapped:
            if command.text_only:
                stream = node.through(stream, _NO_NUL)
            if command.primed and piece.begin:
                # The newline before our first line, whose image is then taken off again.
                stream = node.through(stream, """bash -c 'printf "\\n"; exec cat'""")
                stream = node.through(stream, _shell(command))
                stream = node.through(stream, "tail -c +2")
            else:
                stream = node.through(stream, _shell(command))
        return node, stream

    def _loop(self, node: _Script, turns: Sequence[Turn]) -> str:
        """The turns of a loop, one after the other: a stage that is a function of the script."""
        lines = []
        for turn in turns:
            parts = [word for n in turn.inputs for word in whole(self._inputs[n]).words()]
            reader = f"python3.9 aws/s3-read-several.py /dev/stdout whole {shlex.join(parts)}"
            source = [reader] if parts else ["true"]
            # What is no failure, beside 0 and SIGPIPE.
            harmless = [int(command.words[0] in MAY_SAY_ONE) for command in turn.commands]
            lines.append(" | ".join([*source, *map(_shell, turn.commands)]))
            lines.append(f'judge "${{PIPESTATUS[*]}}" "{" ".join(map(str, [0, *harmless]))}"')
        node.functions += [_JUDGE, "turns() {", *lines, "}"]
        return node.made_of("turns")

    def _gathered(self, node: _Script, parts: Sequence[_Part]) -> str:
        fifos = [self._link(sender, source, node) for sender, source in parts]
        gather: Gather = self._plan.gather
        if gather.merges and len(fifos) > 1:
            stream = node.made_of(f"{shlex.join(gather.words)} {' '.join(fifos)}")
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
        return _read(node, "whole", [whole(self._inputs[name]) for name in self._plan.inputs])

    def _ran(self, node: _Script, stream: str, command: Command) -> str:
        words = [shlex.quote(word) for word in command.words]
        for index in command.inputs:
            words[index] = _read(node, "whole", [whole(self._inputs[command.words[index]])])
        return node.through(stream, _shell(command, words))


def _read(node: _Script, how: str, parts: Sequence[Part]) -> str:
    """Reads parts of objects, one after the other."""
    out = node.fifo()
    words = [word for part in parts for word in part.words()]
    node.stages.append(f"python3.9 aws/s3-read-several.py {out} {how} {shlex.join(words)}".rstrip())
    return out


def _concatenated(node: _Script, fifos: Sequence[str]) -> str:
    if len(fifos) == 1:
        return fifos[0]
    # Not `cat`, which opens one after the other: `head` may leave before it opens the last.
    return node.made_of(f"{REDUCE} cat {' '.join(fifos)}")


def _sending(key: str, source: str) -> str:
    return f"send*{key}*0*1*{source.strip(chr(34))}"


def _shell(command: Command, words: Sequence[str] | None = None) -> str:
    pairs = [f"{name}={shlex.quote(value)}" for name, value in command.env]
    shown = words if words is not None else [shlex.quote(word) for word in command.words]
    return " ".join([*pairs, *shown, *(["2>/dev/null"] if command.quiet else [])])
