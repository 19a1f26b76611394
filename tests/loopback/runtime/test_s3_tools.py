"""s3-get and s3-put against a real local S3 API: whole or nothing, and through bad connections."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.errors import StorageError
from punchlib.runtime.s3_reader import ObjectReader
from tests.support.ministack import MiniStack

from .conftest import Bash
from .http_faults import CuttingProxy, Recorder

MIB = 1 << 20
ODD_KEY = 'in put\'s "2"/#x*é+%20.txt'
WAIT = """
source runtime/wait_for_output_and_sigpipe_rest.sh $p
exit $internal_exec_status
"""


class Bucket:
    """The test's bucket."""

    def __init__(self, ministack: MiniStack, name: str) -> None:
        self.s3 = ministack.client("s3")
        self.name = name

    def put(self, key: str, data: bytes) -> None:
        self.s3.put_object(Bucket=self.name, Key=key, Body=data)

    def get(self, key: str) -> bytes | None:
        if key not in self.keys():
            return None
        body: bytes = self.s3.get_object(Bucket=self.name, Key=key)["Body"].read()
        return body

    def keys(self) -> list[str]:
        listed = self.s3.list_objects_v2(Bucket=self.name)
        return [item["Key"] for item in listed.get("Contents", [])]

    def uploads(self) -> list[Any]:
        """Multipart uploads that are neither completed nor aborted."""
        return list(self.s3.list_multipart_uploads(Bucket=self.name).get("Uploads", []))


@pytest.fixture
def bucket(ministack: MiniStack, s3_env: dict[str, str]) -> Bucket:
    return Bucket(ministack, s3_env["AWS_BUCKET"])


def put_job(stage: str) -> str:
    """One stage into a put, with the wait script."""
    return f"""
    rm -f "$D/#fifo1"; mkfifo "$D/#fifo1"
    {{ {stage} > "$D/#fifo1" & }}
    p=$!
    {{ python3.9 aws/s3-put-object.py out "$D/#fifo1" $1 & }}
    p="$! $p"
    {WAIT}
    """


@pytest.mark.parametrize("size", [0, 1, 8 * MIB, 8 * MIB + 1])
def test_there_and_back(
    bash: Bash, bucket: Bucket, s3_env: dict[str, str], tmp_path: Path, size: int
) -> None:
    data = os.urandom(size)
    (tmp_path / "in").write_bytes(data)
    result = bash(
        """
        mkfifo "$D/#f 1" "$D/#f 2"
        cat "$D/in" > "$D/#f 1" &
        python3.9 aws/s3-put-object.py "$KEY" "$D/#f 1" ignored || exit
        cmp "$D/#f 2" "$D/in" & cmp=$!
        python3.9 aws/s3-get-object.py "$KEY" "$D/#f 2" || exit
        wait $cmp
        """,
        env=s3_env | {"KEY": ODD_KEY},
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert bucket.get(ODD_KEY) == data
    assert not bucket.uploads()


def test_ranges_are_raw(bash: Bash, bucket: Bucket, s3_env: dict[str, str]) -> None:
    bucket.put("k", b"0123456789")
    get = "python3.9 aws/s3-get-object.py k /dev/stdout"
    assert bash(f"{get} bytes=2-4", env=s3_env).stdout == b"234"
    assert bash(f"{get} bytes=7-", env=s3_env).stdout == b"789"
    assert bash(f"{get} bytes=7-99", env=s3_env).stdout == b"789"
    beyond = bash(f"{get} bytes=10-12", env=s3_env)
    assert (beyond.returncode, beyond.stdout) == (1, b"")
    assert b"InvalidRange" in beyond.stderr
    bucket.put("empty", b"")
    nothing = bash(f"{get.replace(' k ', ' empty ')} bytes=0-99", env=s3_env)
    assert (nothing.returncode, nothing.stdout) == (0, b"")


@pytest.mark.parametrize(
    "command",
    [
        "s3-get-object.py k /dev/stdout bytes=2-4",
        "s3-get-object.py k /dev/stdout bytes=0-4",
        "s3-shard-reader.py k /dev/stdout bytes=3-6",
        "s3-chunk-reader-smart-prealigned.py k /dev/stdout bytes=3-6 write_headers=false",
        "s3-read-several.py /dev/stdout whole k 2-4/8 e",
        "s3-read-several.py /dev/stdout lines k 3-6/8 e",
    ],
)
def test_a_store_that_ignores_ranges(bash: Bash, s3_env: dict[str, str], command: str) -> None:
    """It answers 200 and all of the object: these would pass for the bytes that were meant."""
    with Recorder(200, b"0\n2\n4\n6\n").running() as server:
        env = s3_env | {"AWS_ENDPOINT_URL": server.url}
        result = bash(f"python3.9 aws/{command}", env=env)
    assert (result.returncode, result.stdout) == (1, b"")
    assert b"the store ignores ranges" in result.stderr


def test_a_broken_connection_resumes_at_the_byte(
    bash: Bash, bucket: Bucket, ministack: MiniStack, s3_env: dict[str, str], tmp_path: Path
) -> None:
    data = os.urandom(5 * MIB + 3)
    bucket.put("k", data)
    proxy = CuttingProxy(ministack.port, [1000, 3 * MIB, 600, 10, MIB + 1])
    with proxy.running():
        result = bash(
            'python3.9 aws/s3-get-object.py k "$D/out" bytes=5-',
            env=s3_env | {"AWS_ENDPOINT_URL": proxy.url},
        )
    assert (result.returncode, result.stderr) == (0, b"")
    assert (tmp_path / "out").read_bytes() == data[5:]
    assert proxy.connections >= 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_put_that_is_stopped_while_it_begins(
    bash: Bash,
    bucket: Bucket,
    ministack: MiniStack,
    s3_env: dict[str, str],
    tmp_path: Path,
    number: int,
) -> None:
    """S3 has made the upload, and its name is on the way: nobody else could ever abort it."""

    def stop() -> None:
        assert len(bucket.uploads()) == 1
        os.kill(int((tmp_path / "pid").read_text()), number)
        time.sleep(0.5)

    proxy = CuttingProxy(ministack.port, [], before=stop)
    with proxy.running():
        result = bash(
            """
            trap - INT
            mkfifo "$D/f"; sleep 30 >"$D/f" &
            set -m  # or bash has its background ignore SIGINT
            python3.9 aws/s3-put-object.py out "$D/f" & echo $! >"$D/pid"
            wait $!; status=$?; kill %1; exit $status
            """,
            env=s3_env | {"AWS_ENDPOINT_URL": proxy.url},
        )
    assert result.returncode == 128 + number, result.stderr
    assert bucket.uploads() == []


def test_a_connection_that_always_breaks_is_an_error(
    bash: Bash, bucket: Bucket, ministack: MiniStack, s3_env: dict[str, str], tmp_path: Path
) -> None:
    bucket.put("k", b"x" * 100_000)
    proxy = CuttingProxy(ministack.port, [60_000, *[500] * 100])
    with proxy.running():
        result = bash(
            """
            mkfifo "$D/f"; wc -c < "$D/f" &
            python3.9 aws/s3-get-object.py k "$D/f"; status=$?; wait; exit $status
            """,
            env=s3_env | {"AWS_ENDPOINT_URL": proxy.url},
        )
    assert result.returncode == 1
    assert b"of 100000" in result.stderr
    assert b"the connection broke" in result.stderr
    assert b"next:" in result.stderr
    assert list((tmp_path / "state" / "failures").iterdir())
    assert int(result.stdout) < 100_000


def test_an_object_that_is_replaced_is_never_mixed(
    bucket: Bucket, ministack: MiniStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ministack.env.items():
        monkeypatch.setenv(name, value)
    bucket.put("k", b"a" * 4 * MIB)
    proxy = CuttingProxy(ministack.port, [2 * MIB])
    with proxy.running():
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        stream = ObjectReader(client("s3", Config.from_env()), bucket.name, "k").stream()
        assert set(next(stream)) == {ord("a")}
        bucket.put("k", b"b" * 4 * MIB)
        with pytest.raises(StorageError, match="PreconditionFailed"):
            for data in stream:
                assert set(data) == {ord("a")}


@pytest.mark.parametrize("how", ["whole", "lines"])
def test_the_very_object_that_was_meant(
    bash: Bash, bucket: Bucket, s3_env: dict[str, str], how: str
) -> None:
    bucket.put("k", b"one\n")
    etag = bucket.s3.head_object(Bucket=bucket.name, Key="k")["ETag"].strip('"')
    command = f"python3.9 aws/s3-read-several.py /dev/stdout {how} k 0-3/4 {etag}"
    result = bash(command, env=s3_env)
    assert (result.returncode, result.stdout) == (0, b"one\n"), result.stderr
    bucket.put("k", b"two\n")
    result = bash(command, env=s3_env)
    assert (result.returncode, result.stdout) == (1, b"")
    assert b"the object was replaced while it was being read: run again" in result.stderr


def test_several_objects_in_order(bash: Bash, bucket: Bucket, s3_env: dict[str, str]) -> None:
    """Small ones are read ahead of time, large ones as they come."""
    sizes = [3, 0, 3 * MIB, 10, 2 * MIB, *range(1, 30)]
    words, wanted = [], b""
    for number, size in enumerate(sizes):
        data = (b"%d " % number * (size // 2 + 1))[:size]
        bucket.put(f"part {number}", data)
        words += [f"'part {number}'", f"0-{max(0, size - 1)}/{size}", "''"]
        wanted += data
    result = bash(
        f"python3.9 aws/s3-read-several.py /dev/stdout whole {' '.join(words)}", env=s3_env
    )
    assert (result.returncode, result.stdout) == (0, wanted), result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "are needed"),
        ("/dev/stdout some", "are needed"),
        ("/dev/stdout whole k", "is no KEY RANGE ETAG"),
        ("/dev/stdout whole k 1-2 e", "is no KEY RANGE ETAG"),
        ("/dev/stdout lines none 0-9/10 ''", "NoSuchKey"),
    ],
)
def test_what_several_refuses(
    bash: Bash, bucket: Bucket, s3_env: dict[str, str], words: str, said: str
) -> None:
    result = bash(f"python3.9 aws/s3-read-several.py {words}", env=s3_env)
    assert result.returncode in (1, 2)
    assert said in result.stderr.decode()
    assert result.stdout == b""


@pytest.mark.parametrize(
    "stage",
    [
        "bash -c 'echo half; exit 3'",
        "bash -c 'echo half; kill -9 $$'",
        "runtime/r_unwrap < runtime/r_split",
        "no-such-tool",
    ],
)
def test_a_failed_stage_never_leaves_an_object(
    bash: Bash, bucket: Bucket, s3_env: dict[str, str], stage: str
) -> None:
    for before in (None, b"from before"):
        if before is not None:
            bucket.put("out", before)
        result = bash(put_job(stage), env=s3_env)
        assert result.returncode not in (0, 141)
        assert b"wait: stage 1 of 2" in result.stderr
        assert bucket.get("out") == before
        assert not bucket.uploads()


def test_without_a_state_folder_the_wait_script_still_decides(
    bash: Bash, bucket: Bucket, s3_env: dict[str, str]
) -> None:
    by_hand = s3_env | {"PUNCH_STATE_DIR": ""}
    result = bash(put_job("bash -c 'echo half; sleep 1; exit 3'"), env=by_hand)
    assert (result.returncode, bucket.get("out"), bucket.uploads()) == (3, None, [])
    result = bash(put_job("seq 3"), env=by_hand)
    assert (result.returncode, result.stderr) == (0, b"")
    assert bucket.get("out") == b"1\n2\n3\n"


def test_a_marker_stops_a_put_without_a_wait_script(
    bash: Bash, bucket: Bucket, s3_env: dict[str, str]
) -> None:
    script = "runtime/r_unwrap < runtime/r_split | python3.9 aws/s3-put-object.py out /dev/stdin"
    result = bash(f"set -e\n{script}", env=s3_env)
    assert result.returncode == 1
    assert b"because r_unwrap failed" in result.stderr
    assert (bucket.get("out"), bucket.uploads()) == (None, [])


@pytest.mark.parametrize(("signal", "status"), [("TERM", 143), ("HUP", 129), ("KILL", 137)])
def test_a_put_that_is_killed(
    bash: Bash, bucket: Bucket, s3_env: dict[str, str], signal: str, status: int
) -> None:
    bucket.put("out", b"from before")
    result = bash(
        f"""
        mkfifo "$D/f"; exec 4<> "$D/f"
        python3.9 aws/s3-put-object.py out "$D/f" & put=$!
        head -c 9000000 /dev/zero >&4
        sleep 0.5
        kill -{signal} $put; wait $put; exit $?
        """,
        env=s3_env,
    )
    assert result.returncode == status
    assert bucket.get("out") == b"from before"
    if signal != "KILL":  # then nobody is left to abort it; it stays invisible
        assert not bucket.uploads()


def test_dev_null_drains(bash: Bash, bucket: Bucket, s3_env: dict[str, str]) -> None:
    result = bash("seq 300000 | python3.9 aws/s3-put-object.py /dev/null /dev/stdin", env=s3_env)
    assert (result.returncode, result.stderr, bucket.keys()) == (0, b"", [])


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("unset AWS_BUCKET; {get} k /dev/stdout", 2, b"AWS_BUCKET is not set"),
        ("AWS_BUCKET=not-there {get} k /dev/stdout", 1, b"NoSuchBucket"),
        ("{get} not-there /dev/stdout", 1, b"not-there: NoSuchKey"),
        ("{get} k", 2, b"KEY and DEST"),
        ("{get} k /dev/stdout lines=4", 2, b"no range"),
        ('{get} k "$D/#fifo7"', 2, b"mkfifo"),
        ("unset AWS_BUCKET; {put} k /dev/null", 2, b"AWS_BUCKET is not set"),
        ("AWS_BUCKET=not-there {put} k /dev/null", 1, b"NoSuchBucket"),
        ('{put} k "$D/#fifo7"', 2, b"mkfifo"),
        ("{put} k", 2, b"KEY and SRC"),
        ("AWS_ENDPOINT_URL=http://127.0.0.1:1 {get} k /dev/stdout", 1, b"127.0.0.1:1"),
        ("python3.9 aws/s3-shard-reader.py k /dev/stdout", 2, b"range"),
        ("python3.9 aws/s3-chunk-reader-smart-prealigned.py k /dev/stdout x", 2, b"ranges"),
        ("python3.9 aws/invoke-lambda.py id folder 'no where'", 2, b"wrong arguments"),
        ("python3.9 aws/invoke-lambda.py id folder", 2, b"wrong arguments"),
        ("python3.9 aws/invoke-lambda.py id folder nowhere", 1, b"nowhere"),
    ],
)
def test_errors_say_what_and_what_next(
    bash: Bash, s3_env: dict[str, str], tmp_path: Path, command: str, status: int, said: bytes
) -> None:
    get, put = "python3.9 aws/s3-get-object.py", "python3.9 aws/s3-put-object.py"
    result = bash(command.replace("{get}", get).replace("{put}", put), env=s3_env)
    assert result.returncode == status
    assert said in result.stderr
    assert b"  next: " in result.stderr
    assert b"Traceback" not in result.stderr
    assert not (tmp_path / "#fifo7").exists()


def test_access_denied(bash: Bash, s3_env: dict[str, str]) -> None:
    refusal = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
    with Recorder(403, refusal).running() as server:
        for command in ("s3-get-object.py k /dev/stdout", "s3-put-object.py k /dev/null"):
            result = bash(f"python3.9 aws/{command}", env=s3_env | {"AWS_ENDPOINT_URL": server.url})
            assert result.returncode == 1
            assert b"AccessDenied" in result.stderr
            assert b"s3:GetObject" in result.stderr


MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_is_bounded(top: Path, direct_env: dict[str, str], tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as f:
        f.truncate(100 * MIB)
    state_dir = {"PUNCH_STATE_DIR": str(tmp_path / "state")}
    for command in (
        ["s3-put-object.py", "big", str(big)],
        ["s3-get-object.py", "big", "/dev/null"],
    ):
        # By a small process in between: a child begins with its parent's memory as its peak.
        measured = subprocess.run(
            [sys.executable, "-c", MEASURE, sys.executable, f"aws/{command[0]}", *command[1:]],
            cwd=top,
            env=os.environ | direct_env | state_dir,
            stdout=subprocess.PIPE,
            check=True,
        )
        assert int(measured.stdout.split()[-1]) < 128 * 1024  # kB


@pytest.mark.slow
def test_without_an_engine_too(
    bash: Bash, ministack: MiniStack, direct_env: dict[str, str]
) -> None:
    bucket = Bucket(ministack, direct_env["AWS_BUCKET"])
    assert bash(put_job("seq 4"), env=direct_env).stderr == b""
    got = bash("python3.9 aws/s3-get-object.py out /dev/stdout", env=direct_env)
    assert (got.returncode, got.stdout) == (0, b"1\n2\n3\n4\n")
    failed = bash(put_job("bash -c 'echo half; exit 3'"), env=direct_env)
    assert failed.returncode == 3
    assert bucket.get("out") == b"1\n2\n3\n4\n"
    assert not bucket.uploads()
