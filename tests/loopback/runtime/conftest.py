"""The tools as scripts meet them: laid out in a folder, run by bash, connected by FIFOs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from punchlib.runtime import engine
from punchlib.runtime.layout import lay_out, lay_out_bin
from tests.support.ministack import MiniStack

#: Seconds after which a script counts as hanging.
DEADLINE = 30.0 * float(os.environ.get("PUNCH_TEST_TIME_FACTOR", "1"))

Bash = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="session")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds runtime/ and aws/; its bin/ has python3.9."""
    folder = tmp_path_factory.mktemp("top")
    lay_out(folder)
    lay_out_bin(folder / "bin")
    return folder


@pytest.fixture
def bash(top: Path, tmp_path: Path) -> Bash:
    """Runs a script in a folder of its own that links to runtime/ and aws/, and comes back.

    `$D` is a fresh folder for FIFOs and files; the state folder is `$D/state` unless a test says
    otherwise. The script may hang for DEADLINE seconds: that is a failure.
    """
    work = tmp_path / "work"
    work.mkdir()
    (work / "runtime").symlink_to(top / "runtime")
    (work / "aws").symlink_to(top / "aws")

    def run(
        script: str, *args: str, env: dict[str, str] | None = None, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        path = work / "script.sh"
        path.write_text(script)
        variables = {
            "PATH": f"{top / 'bin'}:runtime:{os.environ['PATH']}",
            "D": str(tmp_path),
            "PUNCH_STATE_DIR": str(tmp_path / "state"),
            "PUNCH_FAILURE_GRACE": "1",
            "LC_ALL": "C.UTF-8",
        }
        process = subprocess.Popen(
            ["bash", str(path), *args],
            cwd=work,
            env=variables | (env or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(stdin, DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            _, err = process.communicate()
            pytest.fail(f"the script hangs; so far it said: {err.decode()}")
        return subprocess.CompletedProcess(path, process.returncode, out, err)

    return run


@pytest.fixture(scope="session")
def engine_name() -> Iterator[str]:
    """A node engine: with it a tool starts in 20 ms, without it boto3 alone takes 300."""
    with engine.spawn() as name:
        yield name


@pytest.fixture
def direct_env(ministack: MiniStack) -> dict[str, str]:
    """The variables for the S3 tools, with a fresh bucket in AWS_BUCKET and no engine."""
    bucket = f"t-{os.urandom(6).hex()}"
    ministack.client("s3").create_bucket(Bucket=bucket)
    return {**ministack.env, "AWS_BUCKET": bucket}


@pytest.fixture
def s3_env(direct_env: dict[str, str], engine_name: str) -> dict[str, str]:
    """The same with an engine, as on every node."""
    return direct_env | {"PUNCH_ENGINE": engine_name}
