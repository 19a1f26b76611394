"""`punch run --local` is alone with itself: nobody reaches it, and nothing of it stays."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import punchlib
from punchlib.local.cloud import LocalCloud
from punchlib.node.protocol import Event, Task
from tests.loopback.node.test_door import upload
from tests.support.jobtools import lasting_job, processes, wait_until
from tests.support.tiers import quick

pytestmark = pytest.mark.attack

#: In a traceback, a line of our code; the checkout's folder may well be called punchlib, too.
OURS = os.fsencode(f"{Path(punchlib.__file__).parent}/")
PUNCH = [sys.executable, "-m", "punchlib.cli.main"]
_SEED = 20261125


def start(folder: Path, scratch: Path) -> subprocess.Popen[bytes]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    return subprocess.Popen(
        [*PUNCH, "run", "--local", str(folder)],
        env={**env, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.fixture
def scratch() -> Path:
    """Below /tmp, and short: in every process's environment, so it marks them too."""
    return Path(tempfile.mkdtemp(prefix="scratch-"))


def assert_nothing_left(scratch: Path) -> None:
    wait_until(lambda: not processes(str(scratch)), 30)
    wait_until(lambda: list(scratch.iterdir()) == [], 30)
    scratch.rmdir()


def test_nobody_can_even_knock(scratch: Path, tmp_path: Path) -> None:
    """All that listens does so in a network that no other user and no browser is in."""
    lasting_job(tmp_path)
    process = start(tmp_path, scratch)
    wait_until(lambda: [p for p in processes(str(scratch)) if _runs(p, "sort")])
    by_network: dict[str, list[int]] = {}
    for pid in processes(str(scratch)):
        by_network.setdefault(_network(pid), []).append(pid)
    by_network.pop("", None)  # has just ended
    assert by_network.pop(_network(os.getpid())) == [process.pid]
    [(_, inside)] = by_network.items()
    listening = _ports(inside[0])
    assert {8080, 9001} < listening, "a look at the right place"
    assert len(listening) >= 4
    names = {v for p in inside for v in _environment(p).split(b"\0") if v[:13] == b"PUNCH_ENGINE="}
    [engine] = {name.partition(b"=")[2] for name in names}
    assert engine
    assert engine not in Path("/proc/net/unix").read_bytes()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert_nothing_left(scratch)


def test_the_local_api_takes_this_runs_key_alone(cloud: LocalCloud) -> None:
    """Where it is reachable (a LocalCloud without namespaces), a web page gets nothing either."""
    url = os.environ["AWS_ENDPOINT_URL"]
    upload("mine", "true")
    signed = "AWS4-HMAC-SHA256 Credential=local/20261125/us-east-1/s3/aws4_request, Signature=0"
    for method, headers in (
        ("OPTIONS", {"Origin": "http://evil", "Access-Control-Request-Method": "PUT"}),
        ("GET", {}),
        ("PUT", {"Authorization": signed}),
    ):
        request = urllib.request.Request(
            f"{url}/punch/sls-scripts/f/mine.sh", method=method, headers=headers, data=b"x"
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == 403
        assert "access-control-allow-origin" not in refused.value.headers
        refused.value.close()


@pytest.mark.parametrize(
    "moment", quick(sorted(random.Random(_SEED).uniform(0, 2) for _ in range(30))[::-1], 6)
)
def test_killed_at_any_moment(moment: float, scratch: Path, tmp_path: Path) -> None:
    lasting_job(tmp_path)
    process = start(tmp_path, scratch)
    time.sleep(moment)
    process.kill()
    process.wait()
    assert process.stderr
    process.stderr.close()
    assert_nothing_left(scratch)


def test_the_janitor_is_killed(scratch: Path, tmp_path: Path) -> None:
    lasting_job(tmp_path)
    process = start(tmp_path, scratch)
    wait_until(lambda: [p for p in processes(str(scratch)) if _runs(p, "sort")])
    [janitor] = _children(process.pid)
    os.kill(janitor, signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode == 137
    assert_nothing_left(scratch)


def test_the_next_run_tidies_up_where_nobody_was_left_to(scratch: Path, tmp_path: Path) -> None:
    lasting_job(tmp_path)
    killed = start(tmp_path, scratch)
    wait_until(lambda: [p for p in processes(str(scratch)) if _runs(p, "sort")])
    [janitor] = _children(killed.pid)
    for pid in (killed.pid, janitor):
        os.kill(pid, signal.SIGKILL)
    killed.communicate(timeout=30)
    wait_until(lambda: not processes(str(scratch)), 30)
    assert [p.name.startswith("punch-local-") for p in scratch.iterdir()] == [True]
    following = start(tmp_path, scratch)
    wait_until(lambda: len(_children(following.pid)) == 1)
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=60)
    assert_nothing_left(scratch)


@pytest.mark.parametrize("moment", quick([0.02, 0.06, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 1.6], 5))
def test_interrupted_at_any_moment(moment: float, scratch: Path, tmp_path: Path) -> None:
    lasting_job(tmp_path)
    process = start(tmp_path, scratch)
    time.sleep(moment)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    if b"Traceback" in stderr:  # Python itself was starting: no line of ours had run
        assert OURS not in stderr, stderr
    else:
        assert process.returncode in (130, -signal.SIGINT)  # a shell shows both as 130
    assert_nothing_left(scratch)


def test_a_lambda_node_writes_to_tmp_alone(cloud: LocalCloud, tmp_path: Path) -> None:
    """As on AWS: what passes here would fail there otherwise."""
    home = Path.home() / ".punch-test-home"
    upload(
        "writes",
        f"for f in {home} $PASH_TOP/x /usr/x /opt/x /etc/x /opt/pashlib $PASH_TOP/runtime/r_split;"
        ' do ( echo spoilt >>"$f" ) 2>/dev/null && echo "wrote $f" >&2; done;'
        " echo to null >/dev/null && echo to tmp >/tmp/x && mkfifo /tmp/f && exit 7",
    )
    result = cloud.launchers["lambda"].run(Event((Task("writes", "f"),)))
    assert (result.scripts[0].returncode, result.scripts[0].stderr_tail) == (7, "")
    assert not home.exists()


def _runs(pid: int, name: str) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == name
    except OSError:
        return False


def _network(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return ""


def _ports(pid: int) -> set[int]:
    rows = [r.split() for r in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(r[1].rpartition(":")[2], 16) for r in rows if r[3] == "0A"}


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
