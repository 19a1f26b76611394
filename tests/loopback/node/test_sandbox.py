"""The sandbox ends what a script has started, in an orderly way where there is time for it."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from punchlib.node import sandbox

#: A shell that dies of SIGTERM at once, and a stage that still has something to do then.
_SCRIPT = """
( trap 'sleep 0.5; echo aborted >"$1"; exit' TERM; echo ready; sleep 60 & wait ) &
wait
"""


@pytest.mark.skipif(sandbox.refusal() is not None, reason="this machine makes no namespaces")
def test_a_stage_that_hears_sigterm_may_finish(tmp_path: Path) -> None:
    file = tmp_path / "aborted"
    command = sandbox.command(
        ["bash", "-c", _SCRIPT, "bash", str(file)], sandbox.View(keep=(str(tmp_path),))
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143

    assert file.read_text() == "aborted\n"


@pytest.mark.skipif(sandbox.refusal() is not None, reason="this machine makes no namespaces")
def test_nothing_outlives_the_script(tmp_path: Path) -> None:
    file = tmp_path / "late"
    script = '( sleep 1; echo late >"$1" ) & exit 3'
    command = sandbox.command(
        ["bash", "-c", script, "bash", str(file)], sandbox.View(keep=(str(tmp_path),))
    )

    assert subprocess.run(command).returncode == 3
    time.sleep(1.5)

    assert not file.exists()


@pytest.mark.skipif(sandbox.refusal() is not None, reason="this machine makes no namespaces")
def test_shared_memory_is_its_own() -> None:
    script = """
        ipcmk -M 4096 >/dev/null && echo secret >/dev/shm/punch-sandbox-test
        ls -A /dev/shm; tail -n +2 /proc/sysvipc/shm | wc -l
    """
    for _ in range(2):  # the second finds nothing of the first
        command = sandbox.command(["bash", "-c", script], sandbox.View())
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["punch-sandbox-test", "1"]
    assert not Path("/dev/shm/punch-sandbox-test").exists()
