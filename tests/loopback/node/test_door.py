"""Who may call the EC2 handler: its own user, or who knows its token."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.jobs.launch import Ec2Launcher, NodeLost
from punchlib.node.protocol import Event, Result, ScriptResult, Task
from punchlib.runtime import handler_call, layout
from tests.loopback.node.conftest import PUNCH, Handler
from tests.support.jobtools import wait_until

pytestmark = pytest.mark.attack

NOBODY = 65534
TOKEN = "t0ken-" + secrets.token_hex(16)


def upload(name: str, text: str) -> Event:
    config = Config.from_env()
    client("s3", config).put_object(
        Bucket=config.bucket, Key=f"sls-scripts/f/{name}.sh", Body=text.encode()
    )
    return Event((Task(name, "f"),))


def as_nobody(what: Callable[[], bytes]) -> bytes:
    """What another user of this machine gets."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(write, what())
        except OSError as error:
            os.write(write, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
EVENT = b'{"ids": ["attack"], "folder_ids": ["f"]}END'


@root_only
def test_another_user_does_not_get_in(handler: Callable[..., Handler], outside: Path) -> None:
    """Over loopback, and over a Unix socket that it may even open."""
    upload("attack", f"touch {outside}/attacked")
    tcp = handler()

    def call_and_leave() -> bytes:
        """Its row in the kernel's table then says root."""
        with socket.create_connection(("127.0.0.1", tcp.port)) as connection:
            connection.sendall(EVENT)
        time.sleep(0.5)
        return b"left"

    def call() -> bytes:
        return json.dumps(tcp.send(EVENT)).encode()

    answer = json.loads(as_nobody(call))
    assert "may not call" in answer["error"]
    assert as_nobody(call_and_leave) == b"left"
    assert not (outside / "attacked").exists()
    assert tcp.send(EVENT)["ok"] is True
    assert (outside / "attacked").exists()


@root_only
def test_nor_over_a_unix_socket(handler: Callable[..., Handler], outside: Path) -> None:
    path = Path("/tmp") / f"punch-test-{secrets.token_hex(4)}"
    event = upload("attack", f"touch {outside}/attacked")
    handler("--unix", str(path))
    path.chmod(0o666)

    def call() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            return handler_call.call(connection, event.to_json(), None)

    assert b"another user of this machine may not call" in as_nobody(call)
    assert not (outside / "attacked").exists()
    assert Ec2Launcher(f"unix:{path}").run(event).ok


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org"])
def test_a_network_needs_a_token(host: str) -> None:
    command = [*PUNCH, "ec2-handler", "--host", host, "--port", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert f"listening on {host} lets anybody in the network run scripts here" in done.stderr


def test_a_short_token_is_none() -> None:
    done = subprocess.run(
        [*PUNCH, "ec2-handler"],
        env={**os.environ, "PUNCH_HANDLER_TOKEN": "secret"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "fewer than 16 characters" in done.stderr
    assert "secret" not in done.stderr


class Wire:
    """Between caller and handler; keeps all that passes."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = port
        self.port = int(self._listener.getsockname()[1])
        self.sent = b""
        self.answered = b""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        caller, _ = self._listener.accept()
        with caller, socket.create_connection(("127.0.0.1", self._port)) as handler:

            def back() -> None:
                while data := handler.recv(65536):
                    self.answered += data
                    caller.sendall(data)
                caller.shutdown(socket.SHUT_WR)

            thread = threading.Thread(target=back)
            thread.start()
            with contextlib.suppress(OSError):
                while data := caller.recv(65536):
                    self.sent += data
                    handler.sendall(data)
            handler.shutdown(socket.SHUT_WR)
            thread.join(20)

    def close(self) -> None:
        self._thread.join(20)
        self._listener.close()


def test_with_a_token(handler: Callable[..., Handler], outside: Path) -> None:
    """Who knows it gets in; nothing of the event can be read, and nothing can be used again."""
    file = outside / "token"
    file.write_text(TOKEN + "\n")
    served = handler("--host", "0.0.0.0", PUNCH_HANDLER_TOKEN_FILE=str(file))
    task = upload(
        "look",
        f"echo run >>{outside}/runs; echo my secret result >&2;"
        ' test -z "$PUNCH_HANDLER_TOKEN$PUNCH_HANDLER_TOKEN_FILE"',
    ).tasks
    event = Event(task, "J", secrets.token_hex(32))
    wire = Wire(served.port)

    result = Ec2Launcher(f"127.0.0.1:{wire.port}", TOKEN.encode()).run(event)
    wire.close()

    assert result.ok, result
    assert result.scripts[0].stderr_tail == "my secret result\n"
    for secret in (TOKEN, event.job_key, "look", "folder_ids"):
        assert secret.encode() not in wire.sent
    assert b"secret result" not in wire.answered
    assert TOKEN not in served.log.read_text()
    # The same bytes again, as whoever recorded them would send them.
    greeting, sealed = wire.sent.splitlines(keepends=True)
    with socket.create_connection(("127.0.0.1", served.port)) as again:
        again.sendall(greeting)
        with again.makefile("rb") as lines:
            assert b"nonce" in lines.readline()
            again.sendall(sealed)
            assert b"does not know this handler's token" in lines.readline()
    assert (outside / "runs").read_text() == "run\n"


def test_without_the_token(handler: Callable[..., Handler], outside: Path) -> None:
    served = handler(PUNCH_HANDLER_TOKEN=TOKEN)
    event = upload("attack", f"touch {outside}/attacked")
    for token, why in (
        (None, "wants a token"),
        (b"another token, long enough", "does not know this handler's token"),
        (TOKEN.lower().encode() + b"x", "does not know this handler's token"),
    ):
        with pytest.raises(NodeLost, match=why):
            Ec2Launcher(served.where, token).run(event)
    assert not (outside / "attacked").exists()
    assert Ec2Launcher(served.where, TOKEN.encode()).run(event).ok


def test_its_own_scripts_call_it(handler: Callable[..., Handler], outside: Path) -> None:
    """As generated scripts do; they know no token, and pass none on."""
    served = handler("--host", "0.0.0.0", PUNCH_HANDLER_TOKEN=TOKEN)
    upload("called", f"touch {outside}/called; sleep 1; touch {outside}/ended")
    event = upload("calls", "python3.9 aws/invoke-lambda.py called f ec2")
    result = Ec2Launcher(served.where, TOKEN.encode()).run(event)
    assert result.ok, result
    wait_until((outside / "ended").exists)
    assert TOKEN not in served.log.read_text()
    # A word to the log, and not a success, where the event is refused.
    event = upload("calls", "python3.9 aws/invoke-lambda.py ../called f ec2")
    result = Ec2Launcher(served.where, TOKEN.encode()).run(event)
    assert "the EC2 handler at this node" in result.scripts[0].stderr_tail


def test_a_shell_of_a_user_calls_it(handler: Callable[..., Handler], outside: Path) -> None:
    """`invoke-lambda.py ID FOLDER ec2` of who is no script of the handler, under its token."""
    # The port is fixed; the address is this process's alone.
    host = f"127.98.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
    served = handler("--host", host, "--port", "9999", PUNCH_HANDLER_TOKEN=TOKEN)
    upload("called", f"touch {outside}/called; sleep 1; touch {outside}/ended")
    layout.lay_out(outside / "top")
    layout.lay_out_bin(outside / "bin")

    def call(token: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PASH_EC2_HOST": host, "PUNCH_HANDLER_TOKEN": token}
        return subprocess.run(
            [outside / "bin/python3.9", "aws/invoke-lambda.py", "called", "f", "ec2"],
            cwd=outside / "top",
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    for token, why in (
        ("", "wants a token"),
        (TOKEN + "x", "does not know this handler's token"),
    ):
        done = call(token)
        assert done.returncode == 1
        assert f"the EC2 handler at {host}:9999" in done.stderr
        assert why in done.stderr
    assert not (outside / "called").exists()
    began = time.monotonic()
    done = call(TOKEN)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < 10, "it waited for more than the word that it is taken"
    wait_until((outside / "ended").exists)
    assert TOKEN not in served.log.read_text()


@root_only
def test_nobody_else_comes_by_their_door(handler: Callable[..., Handler], outside: Path) -> None:
    served = handler(PUNCH_HANDLER_TOKEN=TOKEN)
    result = Ec2Launcher(served.where, TOKEN.encode()).run(
        upload("tells", 'echo "$PUNCH_NODE_DOOR" >&2')
    )
    name = result.scripts[0].stderr_tail.strip()
    assert name.startswith("punch-door-")
    upload("attack", f"touch {outside}/attacked")

    def call() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"\0{name}")
            connection.sendall(EVENT)
            return connection.recv(1000)

    assert b"another user of this machine may not call" in as_nobody(call)
    assert not (outside / "attacked").exists()


def test_a_handler_without_a_token_says_so(handler: Callable[..., Handler]) -> None:
    served = handler()
    with pytest.raises(NodeLost, match="this handler has no token"):
        Ec2Launcher(served.where, TOKEN.encode()).run(upload("a", "true"))


WELL = Result((ScriptResult("a", "f", 0, 1),)).to_json()
FALSE = [b"", json.dumps(WELL).encode(), json.dumps({**WELL, "error": "x"}).encode(), b"[]"]
FALSE += [
    json.dumps({"errorType": "ScriptsFailed", "errorMessage": f"x\n{json.dumps(WELL)}"}).encode()
]


@pytest.mark.parametrize("greets", [True, False])
@pytest.mark.parametrize("answer", [*FALSE, b"sealed"])
def test_a_false_handler_is_not_believed(answer: bytes, greets: bool) -> None:
    """It says that all went well; first it plays the greeting, or it does not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def play() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                said = lines.readline()
                if greets:
                    greeting = {"v": 1, "nonce": "00" * 16}
                    connection.sendall(json.dumps(greeting).encode() + b"\n")
                    said = lines.readline()
                connection.sendall(said if answer == b"sealed" else answer + b"\n")

        thread = threading.Thread(target=play)
        thread.start()
        launcher = Ec2Launcher(f"127.0.0.1:{listener.getsockname()[1]}", TOKEN.encode())
        with pytest.raises(NodeLost):
            launcher.run(Event((Task("a", "f"),), "J", "ab" * 32))
        thread.join()
