#!/usr/bin/env python3
"""Starts AWS's runtime interface emulator, after the cold start that PUNCH_COLD_START describes.

EMULATED_DESCRIPTORS=1024   descriptors of a process, as on AWS
EMULATED_PROCESSES=1024     processes and threads of the worker, as on AWS
EMULATED_CPUS=1             processors (on AWS one for each 1769 MB of memory); 0.5: half of one
EMULATED_FREEZE=0.05        see hold_back.py, which also sees to shares of a processor

PUNCH_COLD_START=0.15                   seconds, the same for each worker
PUNCH_COLD_START=uniform:0.1,0.4        evenly between two bounds
PUNCH_COLD_START=lognormal:0.152,0.38   median and 99th percentile (as measured on AWS)
PUNCH_COLD_START=...;0.001*10           and, with a probability of 0.001, ten seconds instead
"""

from __future__ import annotations

import math
import os
import random
import resource
import sys
import time
from collections.abc import Callable

EMULATOR = "/opt/punch/aws-lambda-rie"
HOLD_BACK = "/opt/punch/hold_back.py"
#: Linux counts a user's processes on the whole machine: each worker is a user of its own.
FIRST_USER, USERS = 100_000, 1 << 30
#: The 99th percentile of the standard normal distribution.
Z99 = 2.3263478740408408

_FORMS = "SECONDS, uniform:LOW,HIGH or lognormal:MEDIAN,P99, then optionally ;PROBABILITY*SECONDS"


def cold_start(text: str, rng: random.Random) -> float:
    """Draws one cold start.

    Args:
        text: the value of PUNCH_COLD_START (see the module); empty means none.
        rng: the source of randomness.

    Returns:
        Seconds to wait, never negative.

    Raises:
        ValueError: the text cannot be understood; the message shows the forms.
    """
    if not text.strip():
        return 0.0
    usual, _, rare = text.partition(";")
    try:
        if rare:
            probability, _, seconds = rare.partition("*")
            if rng.random() < _number(probability):
                return _number(seconds)
        name, colon, values = usual.strip().partition(":")
        if not colon:
            return _number(name)
        low, high = (_number(value) for value in values.split(","))
        return _DISTRIBUTIONS[name](low, high, rng)
    except (ValueError, KeyError):
        raise ValueError(f"PUNCH_COLD_START={text!r} is not understood: use {_FORMS}") from None


def _number(text: str) -> float:
    value = float(text)
    if not 0 <= value < 900:
        raise ValueError(text)
    return value


def _uniform(low: float, high: float, rng: random.Random) -> float:
    return rng.uniform(low, high)


def _lognormal(median: float, p99: float, rng: random.Random) -> float:
    if not 0 < median <= p99:
        raise ValueError
    return rng.lognormvariate(math.log(median), math.log(p99 / median) / Z99)


_DISTRIBUTIONS: dict[str, Callable[[float, float, random.Random], float]] = {
    "uniform": _uniform,
    "lognormal": _lognormal,
}


def confine(descriptors: int, processes: int, cpus: float, rng: random.Random) -> None:
    """Takes away what a worker on AWS does not have; 0 leaves it as it is."""
    there = sorted(os.sched_getaffinity(0))
    if 0 < math.ceil(cpus) < len(there):
        # Which ones is drawn: workers are spread over the machine.
        os.sched_setaffinity(0, rng.sample(there, math.ceil(cpus)))
    if os.geteuid() == 0:
        user = FIRST_USER + rng.randrange(USERS)
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    for limit, most in (
        (resource.RLIMIT_NOFILE, descriptors),
        (resource.RLIMIT_NPROC, processes),
    ):
        if most:
            resource.setrlimit(limit, (most, most))


def main() -> None:
    command = [sys.executable, "-m", "awslambdaric", *sys.argv[1:]]
    try:
        cpus = float(os.environ.get("EMULATED_CPUS") or 0)
        confine(
            int(os.environ.pop("EMULATED_DESCRIPTORS", "0")),
            int(os.environ.pop("EMULATED_PROCESSES", "0")),
            cpus,
            random.Random(),
        )
        if 0 < cpus < 1 or os.environ.get("EMULATED_FREEZE"):
            command = [sys.executable, "-IS", HOLD_BACK, *command]
        time.sleep(cold_start(os.environ.get("PUNCH_COLD_START", ""), random.Random()))
    except ValueError as error:
        sys.exit(str(error))
    os.execv(EMULATOR, [EMULATOR, *command])


if __name__ == "__main__":
    main()
