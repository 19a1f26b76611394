"""`punch doctor` and `punch ping` as people and programs meet them."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import punchlib
from tests.loopback.doctor.test_cloud import make_function, make_table
from tests.support.coturn import coturn
from tests.support.jobtools import wait_until
from tests.support.ministack import MiniStack, free_port

PUNCH = [sys.executable, "-m", "punchlib.cli.main"]
_OURS = ("AWS_", "PUNCH_", "PASH_", "LEASH_")
COLOUR = "\x1b["


def environment(**more: str) -> dict[str, str]:
    """Nothing of AWS, and STUN servers that are dead at once."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
    return env | {
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "PASH_STUN_SERVER": f"127.0.0.1:{free_port()}",
        **more,
    }


@pytest.fixture(autouse=True)
def own_tmp(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What others leave in /tmp, among them the tests beside these, is none of our leftovers."""
    with tempfile.TemporaryDirectory(prefix="doctor-", dir="/tmp") as folder:  # sockets: short
        monkeypatch.setenv("TMPDIR", folder)
        yield


def punch(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*PUNCH, *args],
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def on_a_terminal(*args: str, **env: str) -> tuple[int, str]:
    """Its status, and what it wrote to a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PUNCH, *args], env=environment(**env), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    text = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the last one has closed it
            break
        text += chunk
    os.close(ours)
    return process.wait(), text.decode()


def levels(found: list[dict[str, str]]) -> dict[str, str]:
    return {f["name"]: f["level"] for f in found}


@pytest.fixture(scope="module")
def well(ministack: MiniStack, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """All that there should be: STUN, bucket, table with TTL, function."""
    mine = f"c{uuid.uuid4().hex[:10]}"
    ministack.client("s3").create_bucket(Bucket=mine)
    make_table(ministack, mine)
    ministack.client("dynamodb").update_time_to_live(
        TableName=mine, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires_at"}
    )
    make_function(ministack, mine)
    with coturn(tmp_path_factory.mktemp("coturn")) as (host, port):
        yield {
            **ministack.env,
            "AWS_BUCKET": mine,
            "PUNCH_TABLE": mine,
            "PUNCH_FUNCTION": mine,
            "PASH_STUN_SERVER": f"{host}:{port}",
        }


def test_all_is_well(well: dict[str, str]) -> None:
    done = punch("doctor", "--here", **well)
    assert done.returncode == 0, done.stdout
    assert done.stderr == "all is well\n"
    lines = done.stdout.splitlines()
    assert lines[0] == "here"
    assert all(re.match(r"ok    \S.*  \S", line) for line in lines[1:]), done.stdout


def test_nothing_of_aws_and_no_stun() -> None:
    """One message and the next step for each; the machine is told all the same."""
    done = punch("doctor", "--json")
    assert done.returncode == 2
    report = json.loads(done.stdout)
    assert (report["v"], report["ok"], report["level"]) == (1, False, "fail")
    assert report["version"] == punchlib.__version__
    here = levels(report["places"]["here"])
    assert (here["STUN over TCP"], here["credentials"], here["AWS"]) == ("fail", "fail", "warn")
    assert {here[name] for name in ("system", "/tmp", "FIFOs", "engine")} == {"ok"}
    (worker,) = report["places"]["worker"]
    assert (worker["name"], worker["level"]) == ("probe", "warn")
    assert "credentials" in worker["what"]
    every = [f for place in report["places"].values() for f in place]
    assert all(f["name"] and f["what"] for f in every)
    assert all(f["next_step"] for f in every if f["level"] != "ok")


def test_a_setting_that_is_none() -> None:
    done = punch("doctor", "--here", PUNCH_ROUTES="air")
    assert done.returncode == 2
    assert "fail  settings        PUNCH_ROUTES names 'air'" in done.stdout
    assert "ok    FIFOs" in done.stdout


def test_a_handler_that_cannot_be_asked(tmp_path: Path) -> None:
    """Nobody listens; its token cannot be read. Either is a line, and the rest is told."""
    where = f"127.0.0.1:{free_port()}"
    dead = punch("doctor", "--json", "--ec2", where)
    (line,) = json.loads(dead.stdout)["places"]["node"]
    assert "cannot be reached: Connection refused" in line["what"]
    assert "punch ec2-handler" in line["next_step"]
    no_token = punch(
        "doctor", "--json", PUNCH_EC2_HANDLER=where, PUNCH_HANDLER_TOKEN_FILE=f"{tmp_path}/none"
    )
    (line,) = json.loads(no_token.stdout)["places"]["node"]
    assert "cannot read PUNCH_HANDLER_TOKEN_FILE" in line["what"]


def test_no_secret_is_shown() -> None:
    done = punch("doctor", "--here", PUNCH_JOB_KEY="abcdef0123", PUNCH_HANDLER_TOKEN="t" * 20)
    assert "abcdef0123" not in done.stdout and "t" * 20 not in done.stdout
    assert "PUNCH_JOB_KEY" in done.stdout


def test_forty_columns() -> None:
    status, text = on_a_terminal("doctor", "--here", COLUMNS="40", TERM="xterm")
    assert status == 2
    assert COLOUR in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(map(len, plain.splitlines())) <= 40
    assert "ok    FIFOs\r\n  one in /tmp" in plain


def test_a_wide_terminal_without_colour() -> None:
    status, text = on_a_terminal("doctor", "--here", COLUMNS="120", TERM="xterm", NO_COLOR="1")
    assert status == 2
    assert COLOUR not in text
    assert "ok    FIFOs           one in /tmp" in text
    assert max(map(len, text.splitlines())) <= 120


def test_doctor_in_the_embedded_cloud() -> None:
    done = punch("doctor", "--local", "--json")
    report = json.loads(done.stdout)
    assert list(report["places"]) == ["here", "worker", "node"]
    for place, found in report["places"].items():
        of = levels(found)
        assert (of["bucket"], of["credentials"], of["mapping"]) == ("ok", "ok", "ok"), place
        # What the small STUN server does not tell, and the table that the first stream makes.
        bad = {name for name, level in of.items() if level != "ok"}
        assert bad <= {"filtering", "table", "memory", "/tmp"}, found
    assert done.returncode == 1


def test_ping_in_the_embedded_cloud() -> None:
    done = punch("ping", "--local", "--worker", "--count", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    number = r"\d+(\.\d+)?"
    line = (
        rf"host +127\S+ → 127\S+  stun \d+, register \d+, peer \d+, connect \d+ ms"
        rf"  RTT {number} ms \(median {number}\)  {number} MB/s"
    )
    first, second = done.stdout.splitlines()
    assert re.fullmatch(rf"1 +{line}", first)
    assert re.fullmatch(rf"2 +{line}", second)


def test_ping_over_s3_is_1() -> None:
    done = punch("ping", "--local", "--node", "--json", PUNCH_ROUTES="s3")
    assert done.returncode == 1, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert [a["route"] for a in report["attempts"]] == ["s3"]
    assert report["peer"]["version"] == punchlib.__version__
    assert [a["route"] for a in report["peer"]["attempts"]] == ["s3"]


def test_ping_without_anybody_is_2(well: dict[str, str]) -> None:
    done = punch("ping", "some key", **well, PUNCH_TIMEOUT="2")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nobody else pinged 'some key' within 2 s" in done.stderr
    assert "start `punch ping some key` on the other machine" in done.stderr


def test_two_machines_ping_each_other(well: dict[str, str]) -> None:
    """The second one by `--until-direct`, which is content with one."""
    command = [*PUNCH, "ping", "k1"]
    env = environment(**well)
    one = subprocess.Popen([*command, "--count", "3"], env=env, stdout=subprocess.PIPE)
    other = subprocess.run(
        [*command, "--until-direct"], env=env, capture_output=True, timeout=120, check=False
    )
    text, _ = one.communicate(timeout=120)
    assert one.returncode == other.returncode == 0, other.stderr
    assert len(text.splitlines()) == len(other.stdout.splitlines()) == 1


def test_ping_a_worker_without_credentials_is_2() -> None:
    done = punch("ping", "--worker", "--json")
    assert done.returncode == 2
    report = json.loads(done.stdout)
    assert report["attempts"] == []
    assert "credentials" in report["error"]["message"]
    assert report["error"]["next_step"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["ping"], "wants one peer"),
        (["ping", "k", "--worker"], "wants one peer"),
        (["ping", "--local", "k"], "--local has no other machine"),
        (["ping", "--worker", "--count", "0"], "--count"),
        (["ping", "--node", "--ec2", "here"], "is not HOST:PORT"),
        (["ping", "a\nb"], "control character"),
        (["doctor", "--local", "--here"], "--local has a worker"),
        (["doctor", "--ec2", "here"], "is not HOST:PORT"),
    ],
)
def test_wrong_use(args: list[str], message: str) -> None:
    done = punch(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


@pytest.mark.parametrize("command", [["doctor", "--here"], ["ping", "k"]])
def test_a_signal_ends_it(command: list[str], well: dict[str, str], tmp_path: Path) -> None:
    """A STUN server that takes calls and says nothing; a peer that never comes."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute, (tmp_path / "out").open("wb") as out:
        env = environment(**well | {"PASH_STUN_SERVER": f"127.0.0.1:{mute.getsockname()[1]}"})
        process = subprocess.Popen([*PUNCH, *command], env=env, stdout=out, stderr=out)
        words = b"leftovers" if command[0] == "doctor" else b"waiting for another"
        wait_until(lambda: words in (tmp_path / "out").read_bytes())
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 128 + signal.SIGINT
    assert b"stopped by SIGINT" in (tmp_path / "out").read_bytes()
    assert b"Traceback" not in (tmp_path / "out").read_bytes()
