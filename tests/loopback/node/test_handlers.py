"""The EC2 handler and a Lambda worker as their callers see them."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.jobs.launch import Ec2Launcher, NodeLost
from punchlib.jobs.lease import PATIENCE
from punchlib.jobs.placement import Place
from punchlib.local.cloud import LocalCloud
from punchlib.node.protocol import Event, Task
from tests.support.jobtools import processes, wait_until

HANDLER = [sys.executable, "-m", "punchlib.cli.main", "ec2-handler", "--host", "127.0.0.1"]


@dataclass
class Ec2:
    """An EC2 handler, and the file its log goes to."""

    port: int
    log: Path
    process: subprocess.Popen[bytes]

    def send(self, data: bytes, *, close: bool = True) -> dict[str, Any]:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(data)
            if close:
                connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as answer:
                return dict(json.loads(answer.read()))


@pytest.fixture(scope="module")
def ec2(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ec2]:
    log = tmp_path_factory.mktemp("ec2") / "log"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*HANDLER, "--port", str(port)],
            stderr=file,
        )
    wait_until(lambda: b"listening" in log.read_bytes())
    yield Ec2(port, log, process)
    process.terminate()
    assert process.wait(10) == 143


def upload(name: str, text: str, folder: str = "f") -> None:
    config = Config.from_env()
    key = f"sls-scripts/{folder}/{name}.sh"
    client("s3", config).put_object(Bucket=config.bucket, Key=key, Body=text.encode())


def stop_and_delete(name: str, folder: str = "f") -> None:
    config = Config.from_env()
    key = f"sls-scripts/{folder}/{name}.sh"
    client("s3", config).delete_object(Bucket=config.bucket, Key=key)


@pytest.mark.parametrize(
    ("request_", "close"),
    [
        (b'{"ids": ["hello"], "folder_ids": ["f"], "job_id": "J 1"}', True),
        (b'{"ids": ["hello"], "folder_ids": ["f"]}END', False),
        (b'{"id": "hello", "folder_id": "f"}\nEND\n', False),
    ],
)
def test_forms_of_a_request(request_: bytes, close: bool, ec2: Ec2) -> None:
    upload("hello", "echo to stdout; echo to stderr: $1 >&2")
    answer = ec2.send(request_, close=close)
    assert (answer["v"], answer["ok"]) == (1, True)
    assert answer["scripts"][0]["stderr_tail"] == "to stderr: f\n"


def test_a_script_that_none_can_be_fills_no_memory(ec2: Ec2) -> None:
    upload("huge", "#" * (32 << 20))
    before = _peak_memory(ec2.process.pid)
    answer = ec2.send(b'{"ids": ["huge"], "folder_ids": ["f"]}')
    [script] = answer["scripts"]
    assert script["ended"] == "lost"
    assert "sls-scripts/f/huge.sh has 33554432 bytes" in script["note"]
    assert _peak_memory(ec2.process.pid) < before + 16_000


def _peak_memory(pid: int) -> int:
    """In kB."""
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(peak)


def test_the_lines_that_people_filter_by(ec2: Ec2) -> None:
    upload("hello", "exit 3")
    ec2.send(b'{"ids": ["hello"], "folder_ids": ["f"], "job_id": "J-7"}')
    log = ec2.log.read_text()
    assert "[JOB:J-7] [lambda-function.py] Executing script ID hello\n" in log
    assert "[JOB:J-7] [lambda-function.py] Script ID hello ended with return code 3" in log


@pytest.mark.parametrize("data", [b"no json", b"{}", b'{"ids": ["a"]}', b"[" * 5000, b"\xff\xfe"])
def test_what_is_no_event_is_answered(data: bytes, ec2: Ec2) -> None:
    answer = ec2.send(data)
    assert answer["ok"] is False
    assert answer["error"]


def test_a_probe_and_a_client_that_left(ec2: Ec2) -> None:
    socket.create_connection(("127.0.0.1", ec2.port)).close()
    upload("slow", "sleep 0.5; echo done | python3.9 aws/s3-put-object.py slow-result /dev/stdin")
    with socket.create_connection(("127.0.0.1", ec2.port)) as connection:
        connection.sendall(b'{"id": "slow", "folder_id": "f"}END')
        # Who leaves before it was seen is nobody: another test.
        wait_until(lambda: b"Executing script ID slow" in ec2.log.read_bytes())
    config = Config.from_env()
    s3 = client("s3", config)
    # Its script runs to its end, and its own handler commits it.
    wait_until(lambda: "Contents" in s3.list_objects_v2(Bucket=config.bucket, Prefix="slow-res"))
    assert "Traceback" not in ec2.log.read_text()


def test_scripts_at_once_do_not_meet_in_tmp(ec2: Ec2) -> None:
    """The same FIFO path in ten scripts at once: each finds its own text in it."""
    name = f"pash_{uuid.uuid4().hex}"
    # Each goes on when all ten are there: one after the other they would never be.
    upload(
        "fifo",
        f"mkdir /tmp/{name} || exit 9; mkfifo /tmp/{name}/f; echo $2 >/tmp/{name}/f &"
        f" touch {name}.$2; for try in {{1..600}}; do there=({name}.*); [ ${{#there[@]}} = 10 ] &&"
        f" break; sleep 0.05; done; [ $try != 600 ] && test $(cat /tmp/{name}/f) = $2",
    )
    answers: list[dict[str, Any]] = []

    def one(number: int) -> None:
        event = Event((Task("fifo", "f", (f"n{number}",)),))
        answers.append(ec2.send(json.dumps(event.to_json()).encode()))

    threads = [threading.Thread(target=one, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [a["ok"] for a in answers] == [True] * 10
    assert not Path("/tmp", name).exists()


@pytest.mark.parametrize("place", ["lambda", "ec2"])
def test_what_a_script_sees(place: Place, cloud: LocalCloud) -> None:
    upload(
        "look",
        'printf "%s|" "$#" "$1" "$2" "$AWS_BUCKET" "$PASH_JOB_ID" "${#PUNCH_JOB_KEY}"'
        ' "$(test -p /dev/stdin || test -t 0 || wc -c </dev/stdin)" "${LEASH_ON_LAMBDA-}" >&2;'
        " ls -d runtime aws >/dev/null && test -x /opt/pashlib && test -d $PUNCH_STATE_DIR"
        " && test -w $TMPDIR && python3.9 -c 'import sys; sys.exit(0)'",
    )
    event = Event((Task("look", "f", ("two words",)),), "J", "cd" * 32)
    result = cloud.launchers[place].run(event)
    on_lambda = "1" if place == "lambda" else ""
    assert result.scripts[0].stderr_tail == f"2|f|two words|punch|J|64|0|{on_lambda}|"
    assert result.ok


@pytest.mark.parametrize("place", ["lambda", "ec2"])
def test_nothing_of_a_script_outlives_it(place: Place, cloud: LocalCloud) -> None:
    upload("stray", "setsid sleep 7654 & sleep 7654 & exit 0")
    job = f"stray-{uuid.uuid4().hex}"
    assert cloud.launchers[place].run(Event((Task("stray", "f"),), job)).ok
    wait_until(lambda: not processes(f"PASH_JOB_ID={job}"))


@pytest.mark.parametrize("place", ["lambda", "ec2"])
def test_a_tool_that_was_killed_and_one_that_still_runs(place: Place, cloud: LocalCloud) -> None:
    """Neither has left a word; a script without a wait script does not see how the first ended."""
    starts = (
        'mkfifo "$TMPDIR/in"; exec 8<>"$TMPDIR/in"\n'
        'true > >( exec runtime/r_unwrap <"$TMPDIR/in" )\n'
        'until tool=$(cd "$PUNCH_STATE_DIR/running" && ls -d *.r_unwrap); do sleep 0.05; done\n'
    )
    upload("leaves", starts)
    wait_for_it = 'while kill -0 "${tool%%-*}"; do sleep 0.05; done 2>/dev/null'
    upload("kills", f'{starts}kill -9 "${{tool%%-*}}"; {wait_for_it}; exit 0')
    assert cloud.launchers[place].run(Event((Task("leaves", "f"),), "J")).ok
    killed = cloud.launchers[place].run(Event((Task("kills", "f"),), "J")).scripts[0]
    assert (killed.returncode, killed.ok) == (0, False)
    assert [f.component for f in killed.failures] == ["r_unwrap"]


@pytest.mark.parametrize("place", ["lambda", "ec2"])
def test_a_run_that_was_given_up(place: Place, cloud: LocalCloud) -> None:
    """The script has gone from S3: the node stops by itself."""
    upload("endless", "sleep 600")
    threading.Timer(0.5, stop_and_delete, ["endless"]).start()
    began = time.monotonic()
    result = cloud.launchers[place].run(Event((Task("endless", "f"),), "J", commit="runner"))
    assert result.scripts[0].cause == "the run was given up: its scripts are no longer in S3"
    assert time.monotonic() - began < 120  # and not 600


_HOLDER = """
import sys, time
from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.jobs.lease import Lease
config = Config.from_env()
Lease(client("s3", config), config.bucket, sys.argv[1]).start()
print(flush=True)
time.sleep(600)
"""


def _holder(folder: str) -> subprocess.Popen[bytes]:
    """A process that keeps a run's lease, as a runner does."""
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, folder], stdout=subprocess.PIPE)
    assert holder.stdout and holder.stdout.readline() == b"\n"
    return holder


def test_a_runner_that_was_killed(cloud: LocalCloud) -> None:
    """Its scripts stay in S3; its nodes stop, also where no connection tells them."""
    upload("endless", "sleep 600", "killed")
    upload("longer", f"sleep {PATIENCE + 5}", "alive")
    killed, alive = _holder("killed"), _holder("alive")
    results: dict[tuple[str, Place], Any] = {}

    def one(task: Task, place: Place) -> None:
        event = Event((task,), "J", commit="runner", lease=PATIENCE)
        results[task.id, place] = cloud.launchers[place].run(event).scripts[0]

    tasks = (Task("endless", "killed"), Task("longer", "alive"))
    places: tuple[Place, ...] = ("lambda", "ec2")
    threads = [threading.Thread(target=one, args=(t, p)) for t in tasks for p in places]
    try:
        for thread in threads:
            thread.start()
        killed.kill()
        for thread in threads:
            thread.join()
    finally:
        for holder in (killed, alive):
            holder.kill()
            holder.communicate()
    why = f"the run was given up: its runner gave no sign of life for {PATIENCE:g} s"
    for place in places:
        assert results["endless", place].cause == why
        assert results["longer", place].ok


def test_all_scripts_of_an_event_run(cloud: LocalCloud) -> None:
    """In order, and the second although the first failed: its peers wait for it."""
    upload("one", "exit 3")
    upload("two", "exit 0")
    for launcher in cloud.launchers.values():
        result = launcher.run(Event((Task("one", "f"), Task("two", "f"))))
        assert [(s.id, s.returncode) for s in result.scripts] == [("one", 3), ("two", 0)]
        assert not result.ok


def test_an_ec2_handler_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(NodeLost, match=f"the EC2 handler at 127.0.0.1:{port} cannot be reached"):
        Ec2Launcher(f"127.0.0.1:{port}").run(Event((Task("a", "f"),)))


def test_a_taken_port(ec2: Ec2) -> None:
    done = subprocess.run(
        [*HANDLER, "--port", str(ec2.port)],
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{ec2.port}" in done.stderr
