"""The draft of a job: its scripts, their FIFOs and stages, and the streams between them.

A `Draft` collects scripts; `Draft.link` connects a FIFO of one script with a FIFO of another by a
stream, as a sender on one side and a receiver on the other. Names, keys and folders follow from
the job's name, so that the same job is the same text every time, and a re-run uses the same keys.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from pathlib import Path

PIDS = 'pids_to_kill="${!} ${pids_to_kill}"'


@dataclass
class Script:
    """One script: its FIFOs, its stages, and its streams, grouped into pashlib processes."""

    id: str
    folder: str
    preamble: list[str] = field(default_factory=list)
    fifos: list[str] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    streams: dict[int, list[str]] = field(default_factory=dict)

    def fifo(self) -> str:
        """A new FIFO; its path, quoted as a generated script quotes it."""
        self.fifos.append(f"{self.folder}#fifo{len(self.fifos) + 2}")
        return f'"{self.fifos[-1]}"'

    def stage(self, command: str) -> None:
        self.stages.append(command)

    def buffered(self, source: str) -> str:
        """A dgsh-tee behind `source`; the FIFO it fills."""
        out = self.fifo()
        self.stage(f"runtime/dgsh-tee -i {source} -o {out} -I -b 5M")
        return out

    def get(self, key: str) -> str:
        """An object of the bucket, in a FIFO."""
        out = self.fifo()
        self.stage(f'python3.9 aws/s3-get-object.py "{key}" {out}')
        return out

    def put(self, key: str, source: str) -> None:
        self.stage(f'python3.9 aws/s3-put-object.py "{key}" {source} $1')

    def text(self) -> str:
        pashlibs = [f"/opt/pashlib {' '.join(args)}" for _, args in sorted(self.streams.items())]
        lines = [
            "#!/bin/bash",
            "export PATH=$PATH:runtime",
            "export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:runtime/lib",
            *self.preamble,
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
        for command in [*self.stages, *pashlibs]:
            lines += [f"{{ {command} & }}", PIDS]
        lines += [
            "source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}",
            "rm_pash_fifos",
            '( exit "${internal_exec_status}" )',
            "",
        ]
        return "\n".join(lines)


@dataclass
class Draft:
    """A job in the making.

    Attributes:
        inputs: keys that the job reads.
        output: the key that it writes.
        pipeline: what gives the same bytes; reads the inputs as $IN1, $IN2, …
        places: what the manifest says, for scripts whose text would place them elsewhere.
    """

    name: str
    inputs: list[str]
    output: str
    pipeline: str
    scripts: dict[str, Script] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    connections: int = 0

    def script(self, id_: str) -> Script:
        # One folder for all scripts: on one machine they meet in /tmp unless each has its own.
        digest = hashlib.md5(self.name.encode()).hexdigest()
        return self.scripts.setdefault(id_, Script(id_, f"/tmp/pash_{self.name[:7]}/{digest}/"))

    def link(self, sender: Script, source: str, receiver: Script, *, group: int = 0) -> str:
        """Streams `source`, a FIFO of the sender, to the receiver; the FIFO it arrives in."""
        self.connections += 1
        key = uuid.uuid5(uuid.NAMESPACE_OID, f"{self.name}/{self.connections}")
        out = receiver.fifo()
        sender.streams.setdefault(group, []).append(f"send*{key}*0*1*{source.strip(chr(34))}")
        receiver.streams.setdefault(group, []).append(f"recv*{key}*1*0*{out.strip(chr(34))}")
        return out

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for script in self.scripts.values():
            (folder / f"{script.id}.sh").write_text(script.text())
        if self.places:
            text = "".join(f'[nodes.{i}]\nplace = "{p}"\n\n' for i, p in self.places.items())
            (folder / "job.toml").write_text(text.rstrip() + "\n")


def scatter(job: Draft, width: int, *, framed: bool = False) -> list[tuple[Script, str]]:
    """A splitter and `width` workers; each worker with the FIFO of its part."""
    splitter = job.script("splitter")
    parts = [splitter.fifo() for _ in range(width)]
    flag = "" if framed else "-r "
    source = splitter.buffered(splitter.get(job.inputs[0]))
    splitter.stage(f"runtime/r_split {flag}{source} 1000000 {' '.join(parts)}")
    out = []
    for number, part in enumerate(parts, 1):
        worker = job.script(f"worker{number}")
        out.append((worker, worker.buffered(job.link(splitter, part, worker))))
    return out


def gather(job: Draft, parts: list[tuple[Script, str]], name: str = "merger") -> list[str]:
    """Streams everything to one script; the FIFOs there."""
    merger = job.script(name)
    return [merger.buffered(job.link(worker, fifo, merger)) for worker, fifo in parts]


def finish(job: Draft, name: str, command: str) -> None:
    """The last stage: `command` into the output object."""
    merger = job.script(name)
    out = merger.fifo()
    merger.stage(f"{command} >{out}")
    merger.put(job.output, out)


def mapped(parts: list[tuple[Script, str]], command: str) -> list[tuple[Script, str]]:
    """`command` on each worker's part."""
    out = []
    for worker, source in parts:
        result = worker.fifo()
        worker.stage(f"<{source} {command} >{result}")
        out.append((worker, result))
    return out


def merge_tree(
    job: Draft, parts: list[tuple[Script, str]], command: str, *, until: int = 2
) -> list[tuple[Script, str]]:
    """Merges pairs on scripts of their own until that many streams are left."""
    number = 0
    while len(parts) > until:
        merged = []
        for left in range(0, len(parts) - 1, 2):
            number += 1
            node = job.script(f"merger{number}")
            fifos = gather(job, parts[left : left + 2], node.id)
            out = node.fifo()
            node.stage(f"{command} {' '.join(fifos)} >{out}")
            merged.append((node, out))
        parts = merged + (parts[-1:] if len(parts) % 2 else [])
    return parts
