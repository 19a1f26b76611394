"""Makes jobs in the shape of generated PaSh scripts, with inputs and the plain pipeline.

    python -m tests.support.jobgen NAME DIR     writes the scripts of one job into DIR

What a job is made of is in `jobgen_draft`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.jobgen_draft import Draft, Script, finish, gather, mapped, merge_tree, scatter


def sort_job(width: int) -> Draft:
    job = Draft(
        f"sortw{width}",
        ["oneliners/inputs/1M.txt"],
        f"oneliners/outputs/sort.sh:1M.txt:{width}:leashstdout.txt",
        'sort "$IN1"',
    )
    parts = merge_tree(job, mapped(scatter(job, width), "sort"), "sort -m")
    finish(job, "merger", f"sort -m {' '.join(gather(job, parts))}")
    return job


def word_frequency() -> Draft:
    """Counts words; each block is wrapped, so workers' blocks keep their order until the merge."""
    words = "tr -cs A-Za-z '\\n' | grep . | tr A-Z a-z"
    job = Draft(
        "wfreq",
        ["text/in.txt"],
        "out/word frequencies.txt",
        f'<"$IN1" {words} | sort | uniq -c | sort -k1,1rn -k2',
    )
    parts = scatter(job, 3, framed=True)
    parts = mapped(parts, f"runtime/r_wrap bash -c '{words.replace(chr(39), chr(34))}'")
    fifos = gather(job, parts)
    merger = job.script("merger")
    merged = merger.fifo()
    merger.stage(f"runtime/r_merge {' '.join(fifos)} >{merged}")
    finish(job, "merger", f"sort <{merged} | uniq -c | sort -k1,1rn -k2")
    return job


def top_n() -> Draft:
    words = "tr -cs A-Za-z '\\n' | grep ."
    job = Draft(
        "topn",
        ["text/in.txt"],
        "out/top.txt",
        f'<"$IN1" {words} | sort | uniq -c | sort -k1,1rn -k2 | sed 100q',
    )
    parts = mapped(mapped(scatter(job, 2), words), "sort")
    fifos = gather(job, parts)
    finish(job, "merger", f"sort -m {' '.join(fifos)} | uniq -c | sort -k1,1rn -k2 | sed 100q")
    return job


def first_lines() -> Draft:
    """A reader that leaves: everything upstream ends by SIGPIPE, and that is no failure."""
    job = Draft("heads", ["text/in.txt"], "out/first.txt", 'sort "$IN1" | head -n 3')
    fifos = gather(job, mapped(scatter(job, 2), "sort"))
    finish(job, "merger", f"sort -m {' '.join(fifos)} | head -n 3")
    return job


def bigrams() -> Draft:
    function = "bigrams() { awk '{ for (i = 1; i < NF; i++) print $i, $(i + 1) }'; }"
    job = Draft(
        "bigrams",
        ["text/in.txt"],
        "out/bigrams.txt",
        f'{function}; bigrams <"$IN1" | sort | uniq -c | sort -k1,1rn -k2',
    )
    parts = scatter(job, 2)
    for worker, _ in parts:
        worker.preamble = [function, "export -f bigrams"]
    fifos = gather(job, mapped(mapped(parts, "bigrams"), "sort"))
    finish(job, "merger", f"sort -m {' '.join(fifos)} | uniq -c | sort -k1,1rn -k2")
    return job


def grep_nothing() -> Draft:
    job = Draft(
        "grep0", ["text/in.txt"], "out/none.txt", 'grep "no line holds this" "$IN1" || true'
    )
    parts = mapped(
        scatter(job, 2, framed=True), "runtime/r_wrap bash -c 'grep \"no line holds this\"'"
    )
    finish(job, "merger", f"runtime/r_merge {' '.join(gather(job, parts))}")
    return job


def stateless() -> Draft:
    """A chain of maps: framed blocks through two workers each, put back in order by r_merge."""
    first, second = "tr a-z A-Z", "sed s/E/3/g"
    job = Draft("chain", ["text/in.txt"], "out/chain.txt", f'<"$IN1" {first} | {second}')
    parts = mapped(scatter(job, 3, framed=True), f"runtime/r_wrap bash -c '{first}'")
    # Lambda to Lambda: the second map runs on workers of its own.
    onward = []
    for number, (worker, fifo) in enumerate(parts, 1):
        follower = job.script(f"follower{number}")
        onward.append((follower, follower.buffered(job.link(worker, fifo, follower))))
    parts = mapped(onward, f"runtime/r_wrap bash -c '{second}'")
    finish(job, "merger", f"runtime/r_merge {' '.join(gather(job, parts))}")
    return job


def unwrapped() -> Draft:
    """Framed blocks whose order does not matter: the workers take the frames off."""
    job = Draft("unwrap", ["text/in.txt"], "out/unwrapped.txt", 'sort -u "$IN1"')
    parts = mapped(scatter(job, 2, framed=True), "runtime/r_unwrap")
    fifos = gather(job, mapped(parts, "sort -u"))
    finish(job, "merger", f"sort -m -u {' '.join(fifos)}")
    return job


def group_by() -> Draft:
    count = "awk 'NF { n[$1]++ } END { for (k in n) print k, n[k] }'"
    total = "awk '{ n[$1] += $2 } END { for (k in n) print k, n[k] }'"
    job = Draft("groupby", ["text/in.txt"], "out/groups.txt", f'{count} "$IN1" | sort')
    fifos = gather(job, mapped(mapped(scatter(job, 3), count), "sort"))
    finish(job, "merger", f"sort -m {' '.join(fifos)} | {total} | sort")
    return job


def set_difference() -> Draft:
    words = "tr -cs A-Za-z '\\n' | grep ."
    job = Draft(
        "comm",
        ["text/in.txt", "text/known words.txt"],
        "out/unknown.txt",
        f'<"$IN1" {words} | sort -u | comm -23 - <(sort -u "$IN2")',
    )
    fifos = gather(job, mapped(mapped(scatter(job, 2), words), "sort -u"))
    known = job.script("merger").get(job.inputs[1])
    finish(job, "merger", f"sort -m -u {' '.join(fifos)} | comm -23 - <(sort -u {known})")
    return job


def s3_ranges(size: int, shards: int) -> Draft:
    """Each worker reads its own range of the object; lines belong to the range they begin in."""
    job = Draft(f"range{shards}", ["text/in.txt"], "out/ranges.txt", 'sort "$IN1"')
    step = -(-size // shards)
    parts = []
    for shard in range(shards):
        worker = job.script(f"worker{shard}")
        out = worker.fifo()
        first, last = shard * step, min((shard + 1) * step, size) - 1
        worker.stage(
            f'python3.9 aws/s3-shard-reader.py "{job.inputs[0]}" {out} bytes={first}-{last}'
            f" shard={shard} num_shards={shards} job_uid={job.name} debug=True"
        )
        parts.append((worker, worker.buffered(out)))
    finish(job, "merger", f"sort -m {' '.join(gather(job, mapped(parts, 'sort')))}")
    return job


def sixteen() -> Draft:
    """One pashlib process with 16 sends and 16 receives."""
    job = Draft("hub16", ["text/in.txt"], "out/hub.txt", 'sort "$IN1"')
    parts = mapped(scatter(job, 16), "sort")
    finish(job, "splitter", f"sort -m {' '.join(gather(job, parts, 'splitter'))}")
    return job


def two_processes() -> Draft:
    """Two pashlib processes in a script, and a stream from Lambda to Lambda."""
    first, second = "grep -v '^$'", "cut -c 1-40"
    job = Draft("twoproc", ["text/in.txt"], "out/two.txt", f'{first} "$IN1" | {second} | sort')
    source = job.script("splitter")
    part = source.buffered(source.get(job.inputs[0]))
    filter_, cutter = job.script("filter"), job.script("cutter")
    source.stage(": split")
    arrived = job.link(source, part, filter_, group=0)
    kept = mapped([(filter_, filter_.buffered(arrived))], first)[0][1]
    arrived = job.link(filter_, kept, cutter, group=1)
    cut = mapped([(cutter, cutter.buffered(arrived))], second)[0][1]
    finish(job, "sorter", f"sort {gather(job, [(cutter, cut)], 'sorter')[0]}")
    return job


def three_processes() -> Draft:
    """A hub that talks to three workers by three pashlib processes."""
    job = Draft("three", ["text/in.txt"], "out/three.txt", 'rev "$IN1" | sort')
    hub = job.script("splitter")
    outs = [hub.fifo() for _ in range(3)]
    hub.stage(f"runtime/r_split -r {hub.get(job.inputs[0])} 1000000 {' '.join(outs)}")
    back = []
    for number, out in enumerate(outs):
        worker = job.script(f"worker{number}")
        arrived = worker.buffered(job.link(hub, out, worker, group=number))
        _, reversed_ = mapped([(worker, arrived)], "rev")[0]
        _, sorted_ = mapped([(worker, reversed_)], "sort")[0]
        back.append(hub.buffered(job.link(worker, sorted_, hub, group=number)))
    finish(job, "splitter", f"sort -m {' '.join(back)}")
    return job


def large() -> Draft:
    """83 scripts and 187 connections, more than half of them between Lambda workers and others."""
    job = Draft("large83", ["text/in.txt"], "out/large.txt", 'sort "$IN1"')
    rank = 32
    sorted_: list[list[tuple[Script, str]]] = [[] for _ in range(rank)]
    for number, (worker, fifo) in enumerate(scatter(job, rank)):
        halves = [worker.fifo(), worker.fifo()]
        worker.stage(f"runtime/r_split -r {fifo} 1000000 {' '.join(halves)}")
        job.places[worker.id] = "lambda"
        for offset, half in enumerate(halves):
            index = (number + offset) % rank
            follower = job.script(f"follower{index + 1}")
            arrived = follower.buffered(job.link(worker, half, follower))
            sorted_[index] += mapped([(follower, arrived)], "sort")
    mergers = []
    for pair in range(0, rank, 2):
        node = job.script(f"merger{pair // 2 + 1}")
        fifos = gather(job, sorted_[pair] + sorted_[pair + 1], node.id)
        out = node.fifo()
        node.stage(f"sort -m {' '.join(fifos)} >{out}")
        mergers.append((node, out))
    final = job.script("final")
    merged = final.fifo()
    final.stage(f"sort -m {' '.join(gather(job, mergers, 'final'))} >{merged}")
    lanes = [final.fifo() for _ in range(11)]
    final.stage(f"runtime/r_split {merged} 100000 {' '.join(lanes)}")
    finish(
        job, "post", f"runtime/r_merge {' '.join(gather(job, [(final, x) for x in lanes], 'post'))}"
    )
    return job


JOBS: dict[str, Callable[[], Draft]] = {
    "sort-width2": lambda: sort_job(2),
    "sort-width4": lambda: sort_job(4),
    "sort-width16": lambda: sort_job(16),
    "word-frequency": word_frequency,
    "top-n": top_n,
    "first-lines": first_lines,
    "bigrams": bigrams,
    "grep-nothing": grep_nothing,
    "stateless-chain": stateless,
    "unwrapped": unwrapped,
    "group-by": group_by,
    "set-difference": set_difference,
    "sixteen": sixteen,
    "two-processes": two_processes,
    "three-processes": three_processes,
    "large": large,
}


if __name__ == "__main__":
    JOBS[sys.argv[1]]().write(Path(sys.argv[2]))
