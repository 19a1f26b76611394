"""What callers and scripts can do to the EC2 handler: so much, and no more."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.jobs.launch import Ec2Launcher
from punchlib.node.protocol import Event
from punchlib.runtime import handler_call
from tests.loopback.node.conftest import PUNCH, Handler
from tests.loopback.node.test_door import EVENT, upload
from tests.support.jobtools import processes, wait_until

pytestmark = pytest.mark.attack


def test_idle_callers_do_not_end_it(handler: Callable[..., Handler]) -> None:
    """1,200 of them at 1,024 descriptors, while a script runs; its result arrives."""
    served = handler(descriptors=1024)
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    event = upload("runs", "sleep 3; echo done >&2")
    results: list[Any] = []
    runs = threading.Thread(target=lambda: results.append(Ec2Launcher(served.where).run(event)))
    runs.start()
    wait_until(lambda: "Executing script ID runs" in served.log.read_text())
    with contextlib.ExitStack() as idle:
        for _ in range(1200):
            idle.enter_context(socket.create_connection(("127.0.0.1", served.port)))
        assert Ec2Launcher(served.where).run(upload("next", "true")).ok, "others still get in"
        runs.join(60)
    assert results[0].ok
    assert results[0].scripts[0].stderr_tail == "done\n"


@pytest.mark.slow
def test_a_slow_request_is_let_go(handler: Callable[..., Handler]) -> None:
    """A byte now and then holds a thread for so long, and no longer."""
    served = handler()
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", served.port)) as slow:
        slow.settimeout(1.0)
        answer = b""
        while not answer:
            assert time.monotonic() - began < 10 * handler_call.REQUEST_TIME
            slow.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                answer = slow.recv(1000)
    assert b"no whole request within 10 s" in answer


def test_a_large_request_is_refused(handler: Callable[..., Handler]) -> None:
    served = handler()
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        with contextlib.suppress(OSError):
            for _ in range(64):
                connection.sendall(b" " * 65536)
        with contextlib.suppress(OSError):
            assert b"more than 1048576 bytes" in connection.recv(1000)
    assert served.send(EVENT)["v"] == 1


@pytest.mark.parametrize(
    "name", ["a/../../b", "../b", "/etc/x", "a\0", "a\nb", "\x1b[2J", "\ud800", ".b", "x" * 201]
)
def test_names_that_leave_their_folder(name: str, handler: Callable[..., Handler]) -> None:
    """One answer, no path, nothing on the terminal of who reads the log, no descriptor lost."""
    served = handler()
    served.send(EVENT)
    before = served.descriptors()
    for ids, folders, args in (([name], ["f"], []), (["a"], [name], []), (["a"], ["f"], [[name]])):
        if args and name.isprintable():
            continue  # an argument may look like a path
        request = {"ids": ids, "folder_ids": folders, **({"args": args} if args else {})}
        answer = served.send(json.dumps(request).encode() + b"END")
        assert answer["ok"] is False
        assert "\x1b" not in json.dumps(answer)
    assert served.descriptors() == before
    assert all(c.isprintable() or c == "\n" for c in served.log.read_text())


def test_a_runner_that_hangs_up(handler: Callable[..., Handler], outside: Path) -> None:
    """Its script ends within seconds, and its upload is aborted."""
    served = handler()
    script = f"(sleep 2; sleep 600) | python3.9 aws/s3-put-object.py out-{outside.name} /dev/stdin"
    task = upload("endless", f"{script} & touch {outside}/runs; wait").tasks
    event = Event(task, f"J-{outside.name}", commit="runner")
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(json.dumps(event.to_json()).encode() + b"END")
        wait_until((outside / "runs").exists)
        assert processes(f"PASH_JOB_ID=J-{outside.name}")
    wait_until(lambda: not processes(f"PASH_JOB_ID=J-{outside.name}"), 10)
    wait_until(lambda: "its runner has hung up" in served.log.read_text())
    config = Config.from_env()
    uploads = client("s3", config).list_multipart_uploads(Bucket=config.bucket).get("Uploads", [])
    assert not [u for u in uploads if u["Key"] == f"out-{outside.name}"]


def test_an_event_that_limits_its_time(handler: Callable[..., Handler]) -> None:
    served = handler()
    event = Event(upload("endless", "sleep 600").tasks, timeout=1.0)
    result = Ec2Launcher(served.where).run(event)
    assert result.scripts[0].note == "the node is out of time; its script was stopped"


def test_a_script_that_says_too_much(handler: Callable[..., Handler]) -> None:
    """The log is bounded and says what it left out; the end is kept."""
    served = handler()
    event = upload(
        "loud",
        "yes 'a line of the log' | head -c 40000000 >&2; printf '\\nthe end\\n' >&2;"
        " yes | head -c 9000000",
    )
    result = Ec2Launcher(served.where).run(event)
    assert result.scripts[0].stderr_tail.endswith("\nthe end\n")
    log = served.log.read_text()
    assert len(log) < 4_000_000
    assert log.count("bytes are not shown; these are the last:") == 2
    assert "] the end\n" in log


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_its_engine_ends_with_it(signum: signal.Signals, tmp_path: Path) -> None:
    """At whatever moment of its start."""
    for number in range(8):
        mark = f"{tmp_path.name}-{signum}-{number}"
        process = subprocess.Popen(
            [*PUNCH, "ec2-handler", "--unix", str(tmp_path / "s")],
            env={k: v for k, v in os.environ.items() if k != "PUNCH_ENGINE"}
            | {"AWS_BUCKET": "b", "MARK": mark},
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.15 + number * 0.1)
        process.send_signal(signum)
        process.wait(20)
        wait_until(lambda m=mark: not processes(f"MARK={m}"), 10)  # type: ignore[misc]
