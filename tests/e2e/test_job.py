"""The example job in containers: right bytes, directly through both NATs, again and again."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from services.emulation import Crossing
from tests.e2e.cloud import EXAMPLE, INPUT, OUTPUT, Cloud
from tests.e2e.conftest import FORGETS
from tests.support.jobgen import JOBS

pytestmark = pytest.mark.e2e

SIZE = 8_000_000


def expected(text: Path) -> bytes:
    return subprocess.run(
        ["sort", str(text)], env={**os.environ, "LC_ALL": "C"}, stdout=subprocess.PIPE, check=True
    ).stdout


@pytest.fixture
def text(cloud: Cloud) -> Path:
    return cloud.text(SIZE)


def test_the_result_is_that_of_sort_and_crossed_both_nats(cloud: Cloud, text: Path) -> None:
    cloud.remove(OUTPUT)
    cloud.emulation.reset_counters()

    done = cloud.run(EXAMPLE, "--put", f"{INPUT}={text}")

    assert done.returncode == 0, done.stderr
    assert cloud.read(OUTPUT) == expected(text)

    plan = cloud.emulation.plan
    payload = text.stat().st_size
    ec2, inside = f"{plan['PUNCH_WAN_EC2']}.130", f"{plan['PUNCH_VPC']}.130"
    pool, workers = plan["PUNCH_WAN_LAMBDA"], plan["PUNCH_LAMBDA"]
    # Between public addresses, at the router between the NATs: out to the workers, and back.
    public = cloud.emulation.crossed("router")
    assert total(public, ec2, pool) >= payload
    assert total(public, pool, ec2) >= payload
    # The same at each NAT, where the inside is a private address: so both have translated it.
    at_ec2, at_lambda = cloud.emulation.crossed("nat-ec2"), cloud.emulation.crossed("nat-lambda")
    assert total(at_ec2, inside, pool) >= payload
    assert total(at_ec2, pool, inside) >= payload
    assert total(at_lambda, ec2, workers) >= payload
    assert total(at_lambda, workers, ec2) >= payload
    # Nothing took the way over S3: workers and services exchanged next to nothing.
    services = plan["PUNCH_CORE"]
    assert total(at_lambda, workers, services) < payload / 20
    assert total(at_lambda, services, workers) < payload / 20
    # Each worker has a public address of its own.
    assert len({c.target for c in public if c.source == ec2 and c.target.startswith(pool)}) == 2


def test_under_all_that_a_path_may_do(cloud: Cloud, text: Path) -> None:
    """Workers that were frozen for longer than a NAT remembers, SYNs that are eaten, a limited
    network, and a stream that stands still for longer than an idle connection lasts."""
    cloud.run(cloud.job(**{f"w{i}": "sleep 3\n" for i in range(2)}))
    warm = cloud.workers()
    assert len(warm) >= 2
    for worker in warm:
        worker.pause()
    try:
        time.sleep(FORGETS + 2)
    finally:
        for worker in warm:
            worker.unpause()
    nats = {"nat-ec2": {}, "nat-lambda": {"RATE": "5", "BURST": "2"}}
    for nat, limits in nats.items():
        cloud.emulation.change_nat(nat, LEAST_TTL="16", **limits)
    try:
        cloud.remove(OUTPUT)
        job = cloud.example({" sort >": f" bash -c 'sleep {FORGETS + 2}; sort' >"}, "slow")
        done = cloud.run(job, "--put", f"{INPUT}={text}")
    finally:
        for nat in nats:
            cloud.emulation.change_nat(nat)
    assert done.returncode == 0, done.stderr
    assert cloud.read(OUTPUT) == expected(text)
    assert {w.id for w in warm} & {w.id for w in cloud.workers()}


def test_a_worker_has_no_more_than_on_aws(cloud: Cloud) -> None:
    job = cloud.job(
        limits="""
        [ "$(ulimit -n)" = 1024 ] || { echo "descriptors: $(ulimit -n)" >&2; exit 1; }
        [ "$(nproc)" = 1 ] || { echo "processors: $(nproc)" >&2; exit 1; }
        ! touch /var/task/x 2>/dev/null || { echo "the root can be written" >&2; exit 1; }
        ! touch /dev/shm/x 2>/dev/null || { echo "there is /dev/shm" >&2; exit 1; }
        ! unshare -U true 2>/dev/null || { echo "there are user namespaces" >&2; exit 1; }
        """
    )
    done = cloud.run(job)
    assert done.returncode == 0, done.stderr


def test_the_same_keys_work_again_and_again(cloud: Cloud, text: Path) -> None:
    for _ in range(2):
        cloud.remove(OUTPUT)
        done = cloud.run(EXAMPLE, "--put", f"{INPUT}={text}")
        assert done.returncode == 0, done.stderr
        assert cloud.read(OUTPUT) == expected(text)


def test_a_job_leaves_nothing_but_its_result(cloud: Cloud, text: Path) -> None:
    cloud.run(EXAMPLE, "--put", f"{INPUT}={text}")

    assert cloud.unfinished_uploads() == []
    assert {k for k in cloud.objects() if not k.startswith("sls-scripts/")} == {INPUT, OUTPUT}


def test_the_log_shows_each_invocation(cloud: Cloud) -> None:
    job = cloud.job(hello="echo what the script says >&2\n")
    wanted = [
        "START RequestId:",
        "[lambda-function.py] Executing script ID hello",
        "what the script says",
        "Script ID hello ended with return code 0",
        "REPORT RequestId:",
    ]
    # The emulator copies a worker's output when it answers, and misses what Docker has not read
    # from the pipe by then: on a busy machine the last lines of one invocation.
    for _ in range(5):
        done = cloud.run(job)
        assert done.returncode == 0, done.stderr
        log = "\n".join(cloud.log_lines())
        missing = [text for text in wanted if text not in log]
        if not missing:
            return
    pytest.fail(f"the log lacks {missing}")


def total(crossed: list[Crossing], source: str, target: str) -> int:
    """Bytes from one address or network (its first three numbers) to another."""
    return sum(
        c.bytes for c in crossed if c.source.startswith(source) and c.target.startswith(target)
    )


@pytest.mark.parametrize("name", ["sort-width4", "two-processes", "word-frequency", "top-n"])
def test_other_jobs_give_what_their_pipelines_give(name: str, cloud: Cloud, text: Path) -> None:
    """A merge tree, a stream from Lambda to Lambda, framed blocks, a reader that leaves."""
    draft = JOBS[name]()
    draft.write(cloud.folder / "job")
    cloud.remove(draft.output)
    done = cloud.run(cloud.folder / "job", "--put", f"{draft.inputs[0]}={text}")
    assert done.returncode == 0, done.stderr
    wanted = subprocess.run(
        ["bash", "-o", "pipefail", "-c", draft.pipeline],
        env={**os.environ, "LC_ALL": "C.UTF-8", "IN1": str(text)},
        stdout=subprocess.PIPE,
        check=False,
    )
    assert cloud.read(draft.output) == wanted.stdout
