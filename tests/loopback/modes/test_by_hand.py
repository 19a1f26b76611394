"""Two nodes run by hand, each `bash script.sh FOLDER`: the right object and 0, or none and not 0.

No handler, no runner and no state folder: what a worker's wait script thinks of its stages must
reach the merger by the stream, in place of END.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from punchlib.runtime.layout import lay_out, lay_out_bin
from tests.support.ministack import MiniStack
from tests.support.pashlib_rig import PATIENCE, World

WAIT = "source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}\n"
WHOLE = "seq 100000"
CUT = "bash -c 'seq 50000; kill -9 $$'"
#: The stage that makes a worker's output, and what the script does before it waits.
BAD = {
    "a stage that is killed": (CUT, ""),
    "long before the wait script": (CUT, "sleep 1"),
    "in a subshell": (f"( {CUT}; exit $? )", ""),
    "in a subshell that first does something else": (f"( {CUT} || {{ true; exit 3; }} )", ""),
    "under timeout": (f"timeout 60 {CUT}", ""),
    "by a component of ours": ("runtime/r_unwrap < runtime/r_split", ""),
    "by one that is hidden": ("( runtime/r_unwrap < runtime/r_split; true )", ""),
    "the shell dies": (CUT, "exec 2>/dev/null; kill -9 $$"),
}
GOOD = {
    "a stage": (WHOLE, ""),
    "long before the wait script": (WHOLE, "sleep 1"),
    "with one that goes on": (WHOLE, 'sleep 3 & pids_to_kill="$! $pids_to_kill"'),
}


class Nodes:
    """A worker that makes a stream, and a merger that puts it into an object."""

    def __init__(self, folder: Path, world: World, env: dict[str, str]) -> None:
        self.env = env
        self.folder = folder
        lay_out(folder)
        lay_out_bin(folder / "bin")
        self.pashlib = world.pashlib
        self.key = uuid.uuid4().hex

    def worker(self, stage: str, before_wait: str) -> str:
        return self.script(
            "mkfifo out\n",
            [f"{stage} >out", f"{self.pashlib} send*{self.key}*0*1*out"],
            before_wait,
        )

    def merger(self) -> str:
        put = "python3.9 aws/s3-put-object.py result in $1"
        return self.script("mkfifo in\n", [f"{self.pashlib} recv*{self.key}*1*0*in", put])

    @staticmethod
    def script(begin: str, stages: list[str], before_wait: str = "") -> str:
        lines = ['pids_to_kill=""']
        for stage in stages:
            lines += [f"{{ {stage} & }}", 'pids_to_kill="${!} ${pids_to_kill}"']
        return begin + "\n".join([*lines, before_wait, WAIT, 'exit "${internal_exec_status}"', ""])

    def run(self, worker_in: Sequence[str] = (), **scripts: str) -> dict[str, tuple[int, str]]:
        running = {}
        for name, text in scripts.items():
            place = self.folder / name
            place.mkdir()
            for part in ("runtime", "aws"):
                (place / part).symlink_to(self.folder / part)
            (place / "script.sh").write_text(text)
            running[name] = subprocess.Popen(
                [*(worker_in if name == "worker" else ()), "bash", "script.sh", "FOLDER"],
                cwd=place,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        said = {name: process.communicate(timeout=PATIENCE)[1] for name, process in running.items()}
        return {name: (running[name].returncode, said[name]) for name in running}


@pytest.fixture
def nodes(tmp_path: Path, world: World, mode: str, ministack: MiniStack) -> Iterator[Nodes]:
    bucket = f"t-{os.urandom(6).hex()}"
    ministack.client("s3").create_bucket(Bucket=bucket)
    env = {
        **world.variables(mode),
        "AWS_BUCKET": bucket,
        "PUNCH_FAILURE_GRACE": "3",
        "PUNCH_STATE_DIR": "",
    }
    env["PATH"] = f"{tmp_path / 'bin'}:{env['PATH']}"
    yield Nodes(tmp_path, world, env)


def objects(ministack: MiniStack, bucket: str) -> dict[str, bytes]:
    s3 = ministack.client("s3")
    names = [o["Key"] for o in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
    return {n: s3.get_object(Bucket=bucket, Key=n)["Body"].read() for n in names}


@pytest.mark.parametrize(("stage", "before_wait"), BAD.values(), ids=BAD)
def test_a_stage_that_ended_badly(
    nodes: Nodes, ministack: MiniStack, stage: str, before_wait: str
) -> None:
    ended = nodes.run(worker=nodes.worker(stage, before_wait), merger=nodes.merger())
    assert objects(ministack, nodes.env["AWS_BUCKET"]) == {}, ended
    assert all(code for code, _ in ended.values()), ended


#: Runs a command as a container does: pid 1 is of its session, and outlives it for a while.
CONTAINER = (
    *("unshare", "--pid", "--fork", "--mount-proc"),
    *("bash", "-c", '"$@"; code=$?; sleep 4; exit $code', "init"),
)


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes namespaces here")
@pytest.mark.parametrize(("stage", "before_wait"), [BAD["the shell dies"], GOOD["a stage"]])
def test_in_a_container(nodes: Nodes, ministack: MiniStack, stage: str, before_wait: str) -> None:
    """Who is orphaned there comes to a pid 1 of its own session: it took it for its script."""
    scripts = {"worker": nodes.worker(stage, before_wait), "merger": nodes.merger()}
    ended = nodes.run(CONTAINER, **scripts)
    codes = [code for code, _ in ended.values()]
    found = objects(ministack, nodes.env["AWS_BUCKET"])
    if stage == WHOLE:
        assert (codes, list(found)) == ([0, 0], ["result"]), ended
    else:
        assert all(codes)
        assert found == {}


@pytest.mark.parametrize(("stage", "before_wait"), GOOD.values(), ids=GOOD)
def test_stages_that_end_well(
    nodes: Nodes, ministack: MiniStack, stage: str, before_wait: str
) -> None:
    ended = nodes.run(worker=nodes.worker(stage, before_wait), merger=nodes.merger())
    assert [code for code, _ in ended.values()] == [0, 0], ended
    whole = "".join(f"{n}\n" for n in range(1, 100_001)).encode()
    assert objects(ministack, nodes.env["AWS_BUCKET"]) == {"result": whole}


@pytest.mark.parametrize("around", ["timeout 900 {}", "cat <( {} )"])
def test_a_sender_that_outlives_its_script(nodes: Nodes, ministack: MiniStack, around: str) -> None:
    """Behind a wrapper it is not reached when the rest is ended: its FIFO waits for a writer."""
    sender = around.format(f"{nodes.pashlib} send*{nodes.key}*0*1*out")
    worker = nodes.script("mkfifo out\n", ["bash -c 'exit 3'", sender])
    ended = nodes.run(worker=worker, merger=nodes.merger())
    assert objects(ministack, nodes.env["AWS_BUCKET"]) == {}, ended
    assert all(code for code, _ in ended.values()), ended
    assert "its script has ended" in ended["worker"][1]


def test_a_send_that_fails_can_cut_its_sibling(nodes: Nodes, ministack: MiniStack) -> None:
    """So its failure counts for both: it closes its FIFO, `tee` dies of SIGPIPE, which is harmless
    to the wait script, and the other stream ends early."""
    other = uuid.uuid4().hex
    sends = f"{nodes.pashlib} send*{nodes.key}*0*1*out send*{other}*0*1*out2"
    stage = "yes | head -c 30000000 | tee out2 >out"
    dies = f"{nodes.pashlib} recv*{other}*1*0*in & exec <in; head -c 9 >&2; kill -9 $!; sleep 5\n"
    ended = nodes.run(
        worker=nodes.script("mkfifo out out2\n", [stage, sends]),
        merger=nodes.merger(),
        dies=f"mkfifo in\n{dies}",
    )
    assert objects(ministack, nodes.env["AWS_BUCKET"]) == {}, ended
    assert ended["worker"][0] and ended["merger"][0], ended
    # The second stage is pashlib: tee did well, as far as bash is concerned.
    assert "stage 1 of 2" not in ended["worker"][1]
