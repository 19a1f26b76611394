"""A run that is over, however it ended, leaves no process, file, socket, upload or record."""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.leftovers import world
from tests.support.texts import english

pytestmark = [pytest.mark.attack, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
#: Runs for each place.
COUNT = int(os.environ.get("LEFTOVERS", "12"))
SEED = int(os.environ.get("LEFTOVERS_SEED", "1"))
#: Worlds side by side.
WORLDS = 2

_HEAD = """\
export PATH=$PATH:runtime
export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:runtime/lib
D=/tmp/pash_L/0123456789abcdef0123456789abcdef
mkdir -p $D
rm -f $D/a $D/b $D/c
mkfifo $D/a $D/b $D/c
pids_to_kill=""
"""
_TAIL = """\
source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}
rm -f $D/a $D/b $D/c
( exit "${internal_exec_status}" )
"""


def _stages(*commands: str) -> str:
    stages = "".join(
        f'{{ {command} & }}\npids_to_kill="${{!}} ${{pids_to_kill}}"\n' for command in commands
    )
    return _HEAD + stages + _TAIL


def _job(folder: Path, middle: str) -> None:
    """Read on one node, sort on the next, put on the third."""
    folder.mkdir()
    (folder / "reader.sh").write_text(
        _stages(
            "python3.9 aws/s3-get-object.py in.txt $D/a",
            "/opt/pashlib send*k1*0*1*$D/a",
        )
    )
    (folder / "sorter.sh").write_text(
        _stages(
            "/opt/pashlib recv*k1*1*0*$D/a",
            f"{middle} <$D/a >$D/b",
            "/opt/pashlib send*k2*0*1*$D/b",
        )
    )
    (folder / "putter.sh").write_text(
        _stages(
            "/opt/pashlib recv*k2*1*0*$D/a",
            "runtime/dgsh-tee -i $D/a -o $D/b -I -b 5M",
            "python3.9 aws/s3-put-object.py out.txt $D/b $1",
        )
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leftovers")
    text = english(400_000, seed=3)
    (folder / "input").write_bytes(text)
    (folder / "wanted").write_bytes(b"".join(sorted(text.splitlines(keepends=True))))
    _job(folder / "job", "LC_ALL=C sort")
    _job(folder / "failing", "bash -c 'head -c 1000; exit 3'")
    for name in ("job", "failing"):
        # Against services that stay there is no Lambda: all three on the handler.
        nodes = "".join(f'[nodes.{n}]\nplace = "ec2"\n' for n in ("reader", "sorter", "putter"))
        (folder / f"{name}-ec2").mkdir()
        for script in (folder / name).glob("*.sh"):
            (folder / f"{name}-ec2" / script.name).write_bytes(script.read_bytes())
        (folder / f"{name}-ec2" / "job.toml").write_text(nodes)
    return folder


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes such a world")
@pytest.mark.parametrize("place", ["local", "aws"])
def test_nothing_is_left(folder: Path, place: str) -> None:
    each = -(-COUNT // WORLDS)

    def one(number: int) -> list[dict[str, Any]]:
        # Away from /tmp, which that world does not see.
        home = ROOT / ".build" / f"leftovers-{os.getpid()}-{place}-{number}"
        home.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-r", folder, home], check=True)
        try:
            if place == "aws":
                for name in ("job", "failing"):
                    subprocess.run(["rm", "-rf", home / name], check=True)
                    (home / f"{name}-ec2").rename(home / name)
            done = subprocess.run(
                world([str(home), str(SEED * 1000 + number), str(each), place]),
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60 + each * 60,
                check=False,
            )
        finally:
            subprocess.run(["rm", "-rf", home], check=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    with ThreadPoolExecutor(WORLDS) as pool:
        runs = [run for runs in pool.map(one, range(WORLDS)) for run in runs]

    assert len(runs) == each * WORLDS
    bad = [run for run in runs if run["left"] or run["wrong"]]
    assert not bad, f"{len(bad)} of {len(runs)} runs: {json.dumps(bad[:5], indent=2)}"
