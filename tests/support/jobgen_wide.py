"""A wide job: word pairs counted by W workers in several layers, through trees of mergers.

    python -m tests.support.jobgen_wide WIDTH DIR     writes its scripts into DIR

At width 16 it has the shape of the widest jobs that are really run: 83 scripts (20 on EC2), 187
streams, three `pashlib` processes a script and 32 streams a process at most, as many `dgsh-tee` as
streams, 16 `r_wrap`, 31 `sort` (15 of them `sort -m`), and about 1,233 FIFOs, of which many are
made and never used.

    splitter ─W→ word×W ─W→ words ─W→ pair×W ═3·2(W-1)═> join tree ─1→ spread ─W→ sort×W
    ─2(W-1)→ merge tree ─1→ count ─1→ final

A pair may lie across the border of two parts. So beside its pairs each part sends its first and
its last word, by streams and processes of their own, and the joins put them together.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.jobgen_draft import Draft, Script, finish, gather, mapped, merge_tree

_WORDS = "tr -cs A-Za-z '\\n' | grep . | tr A-Z a-z"
_PAIRS = "awk 'NR > 1 { print before, $0 } { before = $0 }'"
#: FIFOs that a script of such a job makes at least, used or not.
_FIFOS = 14

#: The pairs, the first word and the last word of a part: a FIFO each.
Part = tuple[Script, tuple[str, str, str]]


def bigrams(width: int = 16) -> Draft:
    """The job; its input needs at least two words for each of the workers."""
    job = Draft(
        f"wide{width}",
        ["text/in.txt"],
        "out/bigrams.txt",
        f'<"$IN1" {_WORDS} | {_PAIRS} | sort | uniq -c',
    )
    root, pairs = _joined(job, _paired(job, width))
    parts = [(root, pairs)]
    spread = gather(job, parts, "spread")[0]
    parts = mapped(_dealt(job, "spread", f"r_split -r {spread} 100000", "sort", width), "sort")
    merged = merge_tree(job, parts, "sort -m", until=1)
    counted = mapped([(job.script("count"), gather(job, merged, "count")[0])], "uniq -c")
    job.places["count"] = "ec2"
    finish(job, "final", f"cat {gather(job, counted, 'final')[0]}")
    for script in job.scripts.values():
        while len(script.fifos) < _FIFOS:
            script.fifo()
    return job


def _dealt(
    job: Draft, name: str, command: str, workers: str, width: int, group: int = 0
) -> list[tuple[Script, str]]:
    """A script cuts what it has into W parts, one for each worker; their buffered FIFOs."""
    source = job.script(name)
    outs = [source.fifo() for _ in range(width)]
    source.stage(f"runtime/{command} {' '.join(outs)}")
    return [
        (worker, worker.buffered(job.link(source, out, worker, group=group)))
        for worker, out in ((job.script(f"{workers}{n}"), out) for n, out in enumerate(outs, 1))
    ]


def _paired(job: Draft, width: int) -> list[Part]:
    """Words in blocks, put in order again, then W parts in a row, each with its pairs."""
    whole = job.script("splitter").get(job.inputs[0])
    parts = _dealt(job, "splitter", f"r_split {whole} 100000", "word", width)
    quoted = _WORDS.replace("'", '"')
    blocks = gather(job, mapped(parts, f"runtime/r_wrap bash -c '{quoted}'"), "words")
    words = job.script("words").fifo()
    job.script("words").stage(f"runtime/r_merge {' '.join(blocks)} >{words}")
    out = []
    for worker, source in _dealt(job, "words", f"auto-split.sh {words}", "pair", width):
        all_, first, last = (worker.fifo() for _ in range(3))
        worker.stage(f"tee {all_} {first} <{source} >{last}")
        pairs, head, tail = (worker.fifo() for _ in range(3))
        worker.stage(f"<{all_} {_PAIRS} >{pairs}")
        worker.stage(f"<{first} sed -n 1p >{head}")
        worker.stage(f"<{last} sed -n '$p' >{tail}")
        out.append((worker, (pairs, head, tail)))
    return out


def _joined(job: Draft, parts: list[Part]) -> tuple[Script, str]:
    """Joins neighbours until one part is left: the script that has it, and its pairs."""
    number = 0
    while len(parts) > 1:
        joined = []
        for left in range(0, len(parts) - 1, 2):
            number += 1
            joined.append(_join(job, job.script(f"join{number}"), parts[left], parts[left + 1]))
        parts = joined + (parts[-1:] if len(parts) % 2 else [])
    script, (pairs, head, tail) = parts[0]
    script.stage(f"cat {head} {tail} >/dev/null")
    return script, pairs


def _join(job: Draft, node: Script, left: Part, right: Part) -> Part:
    (pairs1, head1, tail1), (pairs2, head2, tail2) = (
        tuple(
            node.buffered(job.link(script, fifo, node, group=group))
            for group, fifo in enumerate(fifos)
        )
        for script, fifos in (left, right)
    )
    across, pairs = node.fifo(), node.fifo()
    node.stage(f"paste -d ' ' {tail1} {head2} >{across}")
    node.stage(f"cat {pairs1} {across} {pairs2} >{pairs}")
    return node, (pairs, head1, tail2)


if __name__ == "__main__":
    bigrams(int(sys.argv[1])).write(Path(sys.argv[2]))
