"""The shard and chunk readers on a real local S3 API, and invoke-lambda."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import pytest

from tests.support.ministack import MiniStack

from .conftest import Bash
from .http_faults import Recorder

SHARD = "python3.9 aws/s3-shard-reader.py"
CHUNK = "python3.9 aws/s3-chunk-reader-{}.py"
OBJECTS = {
    "lines": b"".join(b"line %d\n" % n for n in range(40)),
    "boundary": b"123456789\n" * 10,
    "unterminated": b"a\n" * 30 + b"the end",
    "one long line": b"x" * 200_000 + b"\n",
    "tiny": b"ab",
    "empty": b"",
}


def shards(size: int, count: int) -> list[str]:
    edges = [size * n // count for n in range(count + 1)]
    return [f"bytes={a}-{b - 1}" for a, b in zip(edges, edges[1:], strict=False)]  # noqa: RUF007


@pytest.mark.parametrize("name", OBJECTS)
def test_shards_have_every_line_once(
    bash: Bash, ministack: MiniStack, s3_env: dict[str, str], name: str
) -> None:
    data = OBJECTS[name]
    ministack.client("s3").put_object(Bucket=s3_env["AWS_BUCKET"], Key=name, Body=data)
    count = 4
    script = "\n".join(
        f'{SHARD} "{name}" "$D/{n}" {span} shard={n} num_shards={count} job_uid=u debug=True &'
        for n, span in enumerate(shards(len(data), count))
    )
    cat = " ".join(f'"$D/{n}"' for n in range(count))
    result = bash(f"{script}\nwait\ncat {cat}", env=s3_env)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == data


@pytest.mark.parametrize("span", ["bytes=0--1", "bytes=5-2", "bytes=99999-199999"])
def test_empty_ranges(bash: Bash, ministack: MiniStack, s3_env: dict[str, str], span: str) -> None:
    ministack.client("s3").put_object(Bucket=s3_env["AWS_BUCKET"], Key="k", Body=b"a\nb\n")
    result = bash(f"{SHARD} k /dev/stdout {span} split=0 num_splits=1", env=s3_env)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


@pytest.mark.parametrize("kind", ["approx-correction", "smart-prealigned", "approx-tail-coord"])
def test_chunks_dealt_over_workers_merge_back(
    bash: Bash, ministack: MiniStack, s3_env: dict[str, str], kind: str
) -> None:
    data = b"short\n" * 10 + b"x" * 400 + b"\n" + b"tail\n" * 20 + b"no newline"
    ministack.client("s3").put_object(Bucket=s3_env["AWS_BUCKET"], Key="k", Body=data)
    # 100 bytes each: the long line leaves some of them without a line of their own.
    chunks = [
        {"start": start, "end": start + 99, "block_id": n, "shard_id": n % 2}
        for n, start in enumerate(range(0, len(data), 100))
    ]
    lists = [json.dumps(chunks[worker::2]) for worker in range(2)]
    result = bash(
        f"""
        mkfifo "$D/a" "$D/b"
        {CHUNK.format(kind)} k "$D/a" "$A" shard=0 num_shards=2 window_size=adaptive unknown=1 &
        {CHUNK.format(kind)} k "$D/b" "$B" shard=1 num_shards=2 chunks_per_lambda=3 &
        runtime/r_merge "$D/a" "$D/b"
        """,
        env=s3_env | {"A": lists[0], "B": lists[1]},
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == data
    raw = bash(
        f'{CHUNK.format(kind)} k /dev/stdout "$A" write_headers=False',
        env=s3_env | {"A": json.dumps(chunks)},
    )
    assert raw.stdout == data


@pytest.mark.parametrize(
    ("said", "setting", "invoked"),
    [
        ("lambda", {}, "lambda"),
        ("lambda", {"PUNCH_FUNCTION": "sorter"}, "sorter"),
        ("myfunction", {"PUNCH_FUNCTION": "sorter"}, "myfunction"),
        ("f:live", {}, "f%3Alive"),
    ],
)
def test_invoke_lambda_sends_the_event(
    bash: Bash, s3_env: dict[str, str], said: str, setting: dict[str, str], invoked: str
) -> None:
    job = {"PASH_JOB_ID": "j1", "PUNCH_JOB_KEY": "00ff", "PUNCH_COMMIT": "runner"} | setting
    with Recorder(202, b"").running() as server:
        result = bash(
            f"python3.9 aws/invoke-lambda.py 'the id' folder {said}",
            env=s3_env | job | {"AWS_ENDPOINT_URL": server.url},
        )
    assert (result.returncode, result.stderr) == (0, b"")
    [(method, path, headers, body)] = server.seen
    assert (method, path) == ("POST", f"/2015-03-31/functions/{invoked}/invocations")
    assert headers["X-Amz-Invocation-Type"] == "Event"
    assert json.loads(body) == {
        "ids": ["the id"],
        "folder_ids": ["folder"],
        "job_id": "j1",
        "job_key": "00ff",
    }


def test_invoke_ec2_sends_the_event(bash: Bash, tmp_path: Path) -> None:
    # The port is fixed; the address is this process's alone.
    host = f"127.99.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
    received: list[bytes] = []
    with socket.create_server((host, 9999)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(4096):
                    received.append(data)

        thread = threading.Thread(target=serve)
        thread.start()
        script = "python3.9 aws/invoke-lambda.py 7 folder ec2"
        assert bash(script, env={"PASH_EC2_HOST": host}).returncode == 0
        thread.join()
    told = json.loads(b"".join(received))
    assert told == {"ids": ["7"], "folder_ids": ["folder"], "wait": False}
    refused = bash(script, env={"PASH_EC2_HOST": host})
    assert refused.returncode == 1
    assert f"no EC2 handler at {host}:9999".encode() in refused.stderr
