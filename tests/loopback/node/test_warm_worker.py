"""What a warm Lambda worker keeps of the event before: nothing; and an event that comes twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.node import sandbox

#: The real handler, one event after the other in one process, as awslambdaric calls it.
WORKER = """
import json, sys
from punchlib.node import lambda_handler
from punchlib.node.protocol import ScriptsFailed

class Context:
    def __init__(self, request_id):
        self.aws_request_id = request_id

    def get_remaining_time_in_millis(self):
        return 60_000

for line in sys.stdin:
    request_id, event = json.loads(line)
    try:
        answer = lambda_handler.handler(event, Context(request_id))
    except ScriptsFailed as failed:
        answer = {"failed": str(failed)}
    print(json.dumps(answer), flush=True)
"""

#: Leaves what a script can leave; each part is one kind.
DIRTY = r"""
echo secret > /tmp/secret && mkdir /tmp/locked && echo x > /tmp/locked/x && chmod 0 /tmp/locked
echo secret > "/tmp/a name
with a newline" && ln -s /nonexistent /tmp/dangling
[ ! -d /dev/shm ] || echo secret > /dev/shm/punch-test-$$
ipcmk -M 4096 >/dev/null
# One that left the group and the session, forked twice, and cleared its environment.
setsid env -i /bin/sh -c '(exec -a left-behind sleep 300) & (exec sleep 301) &' >/dev/null 2>&1
(trap "" TERM HUP; exec -a deaf sleep 302) >/dev/null 2>&1 &
exit 0
"""

LOOK = r"""
echo "files: $(ls -A /tmp | grep -v ^punch-run- | grep -v ^\.punch- | tr '\n' ' ')" >&2
echo "processes: $(pgrep -x sleep | wc -l)" >&2
echo "shared: $(ls /dev/shm 2>/dev/null | grep -c punch-test)" >&2
echo "ipc: $(awk 'NR > 1 && $4 == 4096' /proc/sysvipc/shm | wc -l)" >&2
mkdir -p /tmp/pash_X/0123456789abcdef && mkfifo "/tmp/pash_X/0123456789abcdef/#fifo1"
"""


class Worker:
    """One worker process with a /tmp of its own, that takes event after event."""

    def __init__(self, folder: Path) -> None:
        tmp = folder / "tmp"
        tmp.mkdir()
        root = Path(__file__).parents[3]
        top = Path(os.environ["PASH_TOP"])
        keep = tuple(str(p) for p in (root, top) if p.is_relative_to("/tmp"))
        view = sandbox.View(tmp=str(tmp), keep=keep)
        self.process = subprocess.Popen(
            sandbox.command([sys.executable, "-P", "-c", WORKER], view),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(root)},
        )

    def run(self, script: str, name: str, request_id: str = "", **more: str) -> dict[str, Any]:
        s3 = client("s3", Config.from_env())
        s3.put_object(
            Bucket=os.environ["AWS_BUCKET"], Key=f"sls-scripts/warm/{name}.sh", Body=script.encode()
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        event = {"ids": [name], "folder_ids": ["warm"], **more}
        line = json.dumps([request_id or str(uuid.uuid4()), event])
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.mark.usefixtures("cloud")
def test_the_next_event_finds_nothing_of_the_one_before(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    try:
        first = worker.run(LOOK + DIRTY, "dirty")
        second = worker.run(LOOK, "look")
    finally:
        worker.close()

    assert first.get("ok"), first
    assert second.get("ok"), second
    said = second["scripts"][0]["stderr_tail"]
    assert said == first["scripts"][0]["stderr_tail"]
    assert "processes: 0" in said and "shared: 0" in said and "ipc: 0" in said


@pytest.fixture
def two_workers(tmp_path: Path) -> Iterator[tuple[Worker, Worker]]:
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        folder.mkdir()
    workers = Worker(folders[0]), Worker(folders[1])
    yield workers
    for worker in workers:
        worker.close()


@pytest.mark.usefixtures("cloud")
def test_an_event_that_lambda_delivers_twice_runs_once(two_workers: tuple[Worker, Worker]) -> None:
    first, second = two_workers
    database = client("dynamodb", Config.from_env())
    # The first event of all finds no table. Scripts make it; here nobody does.
    assert len(first.run("true", "twice", "before-the-table")["scripts"]) == 1
    database.create_table(
        TableName="rdv",
        AttributeDefinitions=[{"AttributeName": "key", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )

    ran = [
        len(worker.run("true", "twice", request)["scripts"])
        for worker, request in ((first, "r1"), (second, "r1"), (second, "r2"), (first, "r1"))
    ]

    assert ran == [1, 0, 1, 0]
    # A runner's call came once, whatever its id: it waits for the answer.
    assert len(second.run("true", "twice", "r1", commit="runner")["scripts"]) == 1
    item = database.get_item(TableName="rdv", Key={"key": {"S": "claim/r1"}})["Item"]
    assert int(item["expires_at"]["N"]) > time.time() + 3600
