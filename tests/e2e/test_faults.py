"""What goes wrong on workers in containers: the job fails and says why, or is right all the same.

Never is there an object that is not whole, and nothing is left running.
"""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.cloud import EXAMPLE, INPUT, OUTPUT, Cloud, wait_for
from tests.e2e.test_job import expected

pytestmark = pytest.mark.e2e

#: The example's sort, delayed: both streams stand, and there is time to hurt somebody.
SLOW_SORT = {" sort >": " bash -c 'sleep 20; sort' >"}


@pytest.fixture
def text(cloud: Cloud) -> Path:
    cloud.remove(OUTPUT)
    cloud.abort_uploads()
    cloud.emulation.reset_counters()
    return cloud.text(1_000_000)


def test_a_worker_killed_in_mid_job_fails_the_job(cloud: Cloud, text: Path) -> None:
    cloud.forget_workers()
    with cloud.start(cloud.example(SLOW_SORT), "--put", f"{INPUT}={text}") as process:
        wait_until_fed(cloud, process)
        victim = cloud.workers()[0]
        victim.kill("SIGKILL")
        killed = time.monotonic()
        _, err = process.communicate(timeout=120)

    assert process.returncode == 1, err
    assert "worker" in err and "failed" in err
    assert time.monotonic() - killed < 60
    nothing_is_left(cloud)
    all_say(cloud, "the worker failed")


def test_a_worker_killed_in_mid_job_costs_a_second_run(cloud: Cloud, text: Path) -> None:
    cloud.forget_workers()
    job = cloud.example(SLOW_SORT)
    with cloud.start(job, "--put", f"{INPUT}={text}", "--retries", "1") as process:
        wait_until_fed(cloud, process)
        cloud.workers()[0].kill("SIGKILL")
        _, err = process.communicate(timeout=180)

    assert process.returncode == 0, err
    assert "that may pass: runs again" in err
    assert cloud.read(OUTPUT) == expected(text)


def test_a_worker_out_of_memory_fails_the_job(cloud: Cloud, text: Path) -> None:
    # /dev/zero has no newline: sort must hold all of it.
    job = cloud.example({" sort >": " sort --buffer-size=8G /dev/zero - >"})

    done = cloud.run(job, "--put", f"{INPUT}={text}")

    assert done.returncode == 1, done.stderr
    assert "worker" in done.stderr
    assert "out of memory" in done.stderr
    nothing_is_left(cloud)
    all_say(cloud, "out of memory")


def test_a_worker_out_of_time_fails_the_job(cloud: Cloud, text: Path) -> None:
    cloud.set_timeout(15)
    job = cloud.example({" sort >": " bash -c 'sleep 100; sort' >"})

    started = time.monotonic()
    done = cloud.run(job, "--put", f"{INPUT}={text}")

    assert done.returncode == 1, done.stderr
    assert "time" in done.stderr
    assert time.monotonic() - started < 80
    nothing_is_left(cloud)


def test_a_path_that_swallows_connections_fails_the_job_soon(cloud: Cloud, text: Path) -> None:
    cloud.remove(OUTPUT)
    cloud.emulation.change_nat("nat-ec2", SWALLOWS="65536")
    try:
        done = cloud.run(EXAMPLE, "--put", f"{INPUT}={text}")
    finally:
        cloud.emulation.change_nat("nat-ec2")
    assert done.returncode == 1
    assert "no acknowledgement" in done.stderr
    assert not cloud.exists(OUTPUT)
    all_say(cloud, "no acknowledgement")


def test_an_outage_of_ten_seconds_only_costs_time(cloud: Cloud, text: Path) -> None:
    """Of everything that is AWS: S3, the table, Lambda."""
    cloud.forget_workers()
    job = cloud.example({" sort >": " bash -c 'sleep 5; sort' >"})
    with cloud.start(job, "--put", f"{INPUT}={text}") as process:
        wait_until_fed(cloud, process)
        aws = cloud.emulation.container("aws")
        aws.pause()
        try:
            time.sleep(10)
        finally:
            aws.unpause()
        _, err = process.communicate(timeout=180)

    assert process.returncode == 0, err
    assert cloud.read(OUTPUT) == expected(text)


def test_a_throttled_worker_is_started_again(cloud: Cloud) -> None:
    """Another job has one of the two that the function may run at once."""
    cloud.set_concurrency(2)
    with cloud.start(cloud.job("long", other="echo up >&2\nsleep 8\n")) as other:
        wait_for(lambda: any(" up" in line for line in cloud.log_lines()[-20:]), "the other job")
        scripts = {f"w{i}": "sleep 2\necho done >&2\n" for i in range(2)}
        started = time.monotonic()
        done = cloud.run(cloud.job(**scripts))
        took = time.monotonic() - started
        _, err = other.communicate(timeout=60)

    assert other.returncode == 0, err
    assert done.returncode == 0, done.stderr
    assert took >= 4, "they ran at the same time: nobody was throttled"


def test_a_job_that_is_too_wide_is_refused(cloud: Cloud) -> None:
    cloud.set_concurrency(1)
    done = cloud.run(cloud.job(w1="true\n", w2="true\n"))
    assert done.returncode == 2
    assert "the job has 2 Lambda nodes" in done.stderr
    assert "is 1" in done.stderr


def test_a_long_cold_start_only_costs_time(cloud: Cloud, text: Path) -> None:
    cloud.set_cold_start("25")  # the emulation takes a worker that needs 30 s for dead
    cloud.run(cloud.job(warm="true\n"))
    assert len(cloud.workers()) == 1  # this one is warm now; the other one starts cold

    started = time.monotonic()
    done = cloud.run(EXAMPLE, "--put", f"{INPUT}={text}")

    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started >= 25
    assert cloud.read(OUTPUT) == expected(text)
    assert "cold start" in done.stderr, "where the time went"


def test_ctrl_c_ends_the_job_everywhere(cloud: Cloud, text: Path) -> None:
    cloud.forget_workers()
    with cloud.start(cloud.example(SLOW_SORT), "--put", f"{INPUT}={text}") as process:
        wait_until_fed(cloud, process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    nothing_is_left(cloud)


def wait_until_fed(cloud: Cloud, job: subprocess.Popen[str]) -> None:
    """Waits until the EC2 node has sent data to both workers, by the router's counters."""
    plan = cloud.emulation.plan
    ec2, pool = f"{plan['PUNCH_WAN_EC2']}.130", plan["PUNCH_WAN_LAMBDA"]

    def fed() -> bool:
        if job.poll() is not None:
            pytest.fail(f"the job ended too early:\n{job.communicate()[1]}")
        crossed = [c for c in cloud.emulation.crossed("router") if c.source == ec2]
        return sum(c.target.startswith(pool) and c.bytes > 99_999 for c in crossed) == 2

    wait_for(fed, "both workers to be fed")


def all_say(cloud: Cloud, cause: str) -> None:
    """What the run said, whoever asks later is told as well."""
    for command, text in cloud.told().items():
        assert cause in text, command


def nothing_is_left(cloud: Cloud) -> None:
    """No output, no parts of it, and nobody who still works on it."""
    assert not cloud.exists(OUTPUT)
    assert cloud.unfinished_uploads() == []
    wait_for(lambda: scripts(cloud) == [], "the scripts to be gone")


def scripts(cloud: Cloud) -> list[str]:
    """Command lines of what scripts have started, on all nodes."""
    containers = [cloud.emulation.container("ec2"), *cloud.workers()]
    out = []
    for container in containers:
        top = container.top(ps_args="-eo pid,args")["Processes"] or []
        out += [args for _, args in top if "pash" in args or "sort" in args or "dgsh" in args]
    return out
