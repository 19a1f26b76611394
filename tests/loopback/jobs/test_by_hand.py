"""docs/migrating.md: the guide's three ways of orchestrating by hand, as they stand on the page."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.jobs.launch import Launcher
from punchlib.jobs.smoke_test import INPUT, OUTPUT
from punchlib.local.cloud import LocalCloud
from punchlib.node.protocol import Event
from punchlib.runtime.layout import write_pashlib
from tests.support.jobtools import wait_until

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/migrating.md").read_text()
EXAMPLE = ROOT / "examples" / "sort-width2"
DEADLINE = 120.0 * float(os.environ.get("PUNCH_TEST_TIME_FACTOR", "1"))


def steps(title: str) -> list[str]:
    """The shell blocks of a section."""
    section = PAGE.split(f"### {title}")[1].split("\n### ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


@contextlib.contextmanager
def lambda_api(function: Launcher) -> Iterator[str]:
    """Lambda's asynchronous invocation, in front of the local cloud's workers."""
    running: list[threading.Thread] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found = re.fullmatch(r"/2015-03-31/functions/(\w+)/invocations", self.path)
            known = found is not None and found[1] == "lambda"
            if known:
                event = Event.from_json(json.loads(body))
                running.append(threading.Thread(target=function.run, args=(event,)))
                running[-1].start()
            self.send_response(202 if known else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        for one in running:
            one.join()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def by_hand(cloud: LocalCloud, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of whoever does it by hand: an EC2 handler, and Lambda's API."""
    host, log = f"127.98.{random.randrange(256)}.{random.randrange(1, 255)}", tmp_path / "log"
    write_pashlib(tmp_path / "pashlib")
    handler = [sys.executable, "-m", "punchlib.cli.main", "ec2-handler", "--host", host]
    with log.open("wb") as out:
        process = subprocess.Popen([*handler, "--pashlib", tmp_path / "pashlib"], stderr=out)
    try:
        wait_until(lambda: b"listening" in log.read_bytes())
        with lambda_api(cloud.launchers["lambda"]) as url:
            yield os.environ | {"PASH_EC2_HOST": host, "AWS_ENDPOINT_URL_LAMBDA": url}
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def wanted(cloud: LocalCloud) -> Iterator[bytes]:
    """The example's input is in the bucket; what its output must be."""
    config = Config.from_env()
    s3, rng = client("s3", config), random.Random(7)
    lines = [b"%016x\n" % rng.getrandbits(64) for _ in range(5000)]
    s3.put_object(Bucket=config.bucket, Key=INPUT, Body=b"".join(lines))
    yield b"".join(sorted(lines))
    for key in (INPUT, OUTPUT):
        s3.delete_object(Bucket=config.bucket, Key=key)


def output() -> bytes:
    config = Config.from_env()
    found = client("s3", config).get_object(Bucket=config.bucket, Key=OUTPUT)
    return bytes(found["Body"].read())


def run(
    command: list[str | Path], env: dict[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=env, cwd=cwd, timeout=DEADLINE, capture_output=True, text=True
    )


def test_option_1_the_script(by_hand: dict[str, str], wanted: bytes, tmp_path: Path) -> None:
    script = ROOT / "examples" / "manual_orchestrate_width2.sh"
    for arguments in ([EXAMPLE], []):  # and again, with the same keys
        done = run([script, *arguments], by_hand, tmp_path)
        assert done.returncode == 0, done.stderr
        assert output() == wanted


def test_option_1_says_what_failed(by_hand: dict[str, str], wanted: bytes, tmp_path: Path) -> None:
    script = ROOT / "examples" / "manual_orchestrate_width2.sh"
    config = Config.from_env()
    client("s3", config).delete_object(Bucket=config.bucket, Key=INPUT)
    done = run([script], by_hand, tmp_path)
    assert done.returncode == 1
    assert "splitter failed" in done.stderr and INPUT in done.stderr


def test_option_2_step_by_step(by_hand: dict[str, str], wanted: bytes, tmp_path: Path) -> None:
    start, fetch = steps("Option 2")
    work = tmp_path / "work"
    work.mkdir()
    for name in ("runtime", "aws"):
        (work / name).symlink_to(Path(os.environ["PASH_TOP"]) / name)
    text = f"set -eu\n{start}\n{fetch}"
    done = run(["bash", "-c", text], by_hand | {"DIR": str(EXAMPLE)}, work)
    assert done.returncode == 0, done.stderr
    assert (work / "out.txt").read_bytes() == wanted


def test_option_3_one_stream(by_hand: dict[str, str], tmp_path: Path) -> None:
    (block,) = steps("Option 3")
    given = tmp_path / "input"
    given.write_bytes(os.urandom(3_000_000))
    text = block.replace("/opt/pashlib", str(tmp_path / "pashlib"))
    for _ in range(2):  # the key may be used again
        done = run(
            ["bash", "-c", f"set -u\nrm -f in out\n{text}\nwait"],
            by_hand | {"INPUT": str(given)},
            tmp_path,
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "received").read_bytes() == given.read_bytes()


def test_option_3_the_fifo_first(by_hand: dict[str, str], tmp_path: Path) -> None:
    done = run([tmp_path / "pashlib", "recv*43*1*0*nowhere"], by_hand, tmp_path)
    assert done.returncode == 2
    assert "mkfifo" in done.stderr and "nowhere" in done.stderr
    assert not (tmp_path / "nowhere").exists()


def test_an_event_that_the_handler_refuses_is_no_success(by_hand: dict[str, str]) -> None:
    top = Path(os.environ["PASH_TOP"])
    done = run(["python3.9", "aws/invoke-lambda.py", "", "f", "ec2"], by_hand, top)
    assert done.returncode == 1 and "script id" in done.stderr
