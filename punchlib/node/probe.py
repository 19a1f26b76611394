"""What a node answers when it is asked how it is (`punch doctor`), or to be pinged (`punch ping`).

Such an event starts no script:

    {"probe": "doctor"}
    {"probe": "ping", "key": KEY, "job_id": ID, "job_key": HEX, "count": N}
    {"probe": "warm", "seconds": S}
    {"probe": "commands", "commands": [NAME, …]}

and the answer says which punchlib gave it:

    {"v": 1, "probe": "doctor", "version": "0.1.0", "findings": […]}
    {"v": 1, "probe": "ping", "version": "0.1.0", "attempts": […]}
    {"v": 1, "probe": "warm", "version": "0.1.0", "cold": true}
    {"v": 1, "probe": "commands", "version": "0.1.0", "missing": [NAME, …]}

A node of a release without probes refuses the event: it names no scripts.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import uvloop

import punchlib
from punchlib.config import Config
from punchlib.doctor import cloud, machine, nat_words, network, ping
from punchlib.doctor.finding import Finding, fail, looked_at, ok, warn
from punchlib.errors import PunchError
from punchlib.node import sandbox, scratch
from punchlib.node.probe_event import Probe
from punchlib.node.protocol import VERSION

_T = TypeVar("_T")


def answer(probe: Probe, config: Config, *, cold: bool = False) -> dict[str, Any]:
    """Does what a probe asks for, on this node.

    Args:
        probe: checked.
        config: the node's own.
        cold: this is a worker's first event.
    """
    said: dict[str, Any] = {"v": VERSION, "probe": probe.kind, "version": punchlib.__version__}
    if probe.kind == "doctor":
        said["findings"] = [f.to_json() for f in examine(config, node=True)]
        return said
    if probe.kind == "warm":
        time.sleep(probe.seconds)
        said["cold"] = cold
        return said
    if probe.kind == "commands":
        said["missing"] = [name for name in probe.commands if not shutil.which(name)]
        return said
    config = replace(config, job_id=probe.job_id, job_key=bytes.fromhex(probe.job_key))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        attempts = runner.run(ping.answer(probe.key, config, probe.count))
    said["attempts"] = [attempt.to_json() for attempt in attempts]
    return said


def examine(config: Config, *, node: bool) -> Iterator[Finding]:
    """Looks at everything here; network and AWS while the rest is told.

    Args:
        config: what the environment says.
        node: this machine runs scripts (a worker, an EC2 node).
    """
    aws = aside(lambda: list(cloud.examine(config, node=node)))
    seen = aside(lambda: asyncio.run(network.look(config)))
    yield from machine.examine()
    yield looked_at("namespaces", lambda: namespaces(config))
    yield looked_at("leftovers", leftovers)
    try:
        yield from nat_words.findings(seen.result(), config)
    except Exception as error:  # as in `looked_at`
        what = f"could not be looked at: {type(error).__name__}: {error}"
        yield warn("network", what, "give this machine a network with IPv4")
    yield from aws.result()


def aside(work: Callable[[], _T]) -> Future[_T]:
    """Does it in a thread that holds up nobody's end: a Ctrl-C does not wait for a dead server."""
    done: Future[_T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done


def namespaces(config: Config) -> Finding:
    """Whether scripts can have a /tmp of their own here, and a whole run a world of its own."""
    if config.on_lambda:
        return ok("namespaces", "not needed: a worker runs one script at a time")
    refused = sandbox.refusal()
    if refused is None:
        return ok("namespaces", "scripts get a /tmp and processes of their own")
    what = f"{refused}: no `punch run --local`, and scripts of an EC2 handler share one /tmp"
    step = "run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1,"
    return warn("namespaces", what, f"{step} kernel.apparmor_restrict_unprivileged_userns=0)")


def leftovers() -> Finding:
    """Folders of handlers and local runs that were killed, and other users' in our place."""
    folder = Path(tempfile.gettempdir())
    state = folder / f".punch-{os.getuid()}"
    if state.exists() and state.stat().st_uid != os.getuid():
        what = f"{state} is another user's, and tools by hand would leave their failures there"
        return fail("leftovers", what, "remove it, or set PUNCH_STATE_DIR")
    left = scratch.unused(folder)
    if not left:
        return ok("leftovers", f"none in {folder}")
    names = ", ".join(path.name for path in left[:3]) + (", …" if len(left) > 3 else "")
    what = f"of runs that were killed, in {folder}: {names}"
    return warn("leftovers", what, "the next run of the same kind removes them; or remove them")


def read(data: object) -> dict[str, Any]:
    """The answer of a probe, with its findings or attempts read.

    Raises:
        PunchError: it is none.
    """
    try:
        assert isinstance(data, Mapping)
        said = {**data, "version": str(data["version"])}
        if "findings" in data:
            said["findings"] = [Finding.from_json(f) for f in data["findings"]]
        elif "cold" in data:
            said["cold"] = bool(data["cold"])
        elif "attempts" in data:
            said["attempts"] = [dict(a) for a in data["attempts"]]
        else:
            raise KeyError("findings")
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise PunchError(
            "the node's answer is none to a probe", next_step="deploy this release on every node"
        ) from error
    return said
