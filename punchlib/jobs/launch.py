"""Starts a script on a node and waits for its result: Lambda by invocation, EC2 by JSON.

A launcher blocks until the node has ended, so the runner calls each in a thread of its own.
"""

from __future__ import annotations

import base64
import json
import random
import re
import socket
import time
from collections.abc import Mapping
from typing import Any, Protocol

from punchlib.aws import errors
from punchlib.aws.clients import client
from punchlib.aws.errors import is_transient
from punchlib.config import Config
from punchlib.errors import JobFailed, PunchError, UsageError
from punchlib.node.probe_event import Probe
from punchlib.node.protocol import Event, Result, parse_error
from punchlib.runtime import handler_call

#: Lambda's longest run is 900 s; the answer to a RequestResponse call comes after that.
READ_TIMEOUT = 960.0
#: Seconds for which a start that was throttled is tried again.
THROTTLE_PATIENCE = 120.0
#: The same where a person waits for an answer.
PROBE_PATIENCE = 10.0


class NodeLost(JobFailed):
    """The node gave no result: it crashed, ran out of memory or of time, or cannot be reached.

    Attributes:
        log_tail: the end of its log, where there is one.
    """

    def __init__(
        self, message: str, *, next_step: str = "", log_tail: str = "", may_pass: bool = False
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.log_tail = log_tail
        self.may_pass = may_pass


class Launcher(Protocol):
    """Runs one event on one node."""

    def run(self, event: Event) -> Result:
        """Blocks until the node has ended.

        Raises:
            NodeLost: it gave no result.
        """
        ...

    def stop(self) -> None:
        """Ends the nodes that run, where there is a shorter way than the bucket."""
        ...


class Probed(Launcher, Protocol):
    """One whose nodes also answer probes."""

    def probe(self, probe: Probe) -> dict[str, Any]:
        """Blocks until the node has answered; it runs no script.

        Raises:
            NodeLost: it gave no answer, or knows no probes.
        """
        ...


class LambdaLauncher:
    """Invokes the function by RequestResponse: the answer brings crashes and throttles as well.

    Args:
        function: its name.
        config: region and endpoint.
        nodes: how many invocations run at once.

    Attributes:
        client: boto3's.
    """

    def __init__(self, function: str, config: Config, nodes: int) -> None:
        self._function = function
        # A second attempt would run the script twice, so botocore makes none.
        self.client = client(
            "lambda",
            config,
            read_timeout=READ_TIMEOUT,
            retries={"total_max_attempts": 1},
            max_pool_connections=max(10, nodes),
        )

    def run(self, event: Event) -> Result:
        return read_answer(*self._invoke(event.to_json(), THROTTLE_PATIENCE))

    def probe(self, probe: Probe) -> dict[str, Any]:
        return read_probe(*self._invoke(probe.to_json(), PROBE_PATIENCE))

    def _invoke(self, event: Mapping[str, Any], patience: float) -> tuple[bytes, str]:
        """The answer, and the end of the log."""
        from botocore.exceptions import BotoCoreError, ClientError

        patience += time.monotonic()
        pause = 0.2
        while True:
            try:
                answer = self.client.invoke(
                    FunctionName=self._function,
                    InvocationType="RequestResponse",
                    Payload=json.dumps(event),
                    LogType="Tail",
                )
                tail = base64.b64decode(answer.get("LogResult", "")).decode(errors="replace")
                return bytes(answer["Payload"].read()), tail
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code", "")
                if code == "TooManyRequestsException" and time.monotonic() < patience:
                    # It has not started: starting it again is safe.
                    time.sleep(pause * random.uniform(0.5, 1.5))
                    pause = min(pause * 2, 5.0)
                    continue
                raise NodeLost(
                    f"Lambda refused to run {self._function!r}: {error}",
                    next_step="check --function, the region and the permissions"
                    if code != "TooManyRequestsException"
                    else "raise the function's concurrency, or run a narrower job",
                    may_pass=is_transient(error),
                ) from error
            except BotoCoreError as error:
                ours = errors.translate(error, f"cannot invoke {self._function!r}", JobFailed)
                assert ours is not None
                raise NodeLost(
                    ours.message, next_step=ours.next_step, may_pass=is_transient(error)
                ) from error

    def stop(self) -> None:
        """Nothing: an invocation cannot be taken back. Its node looks into the bucket."""


class Ec2Launcher:
    """Sends the event to the EC2 handler.

    Args:
        where: HOST:PORT, or unix:PATH.
        token: the handler's, where it has one.

    Raises:
        UsageError: `where` is neither.
    """

    def __init__(self, where: str, token: bytes | None = None) -> None:
        self._where = where
        self._token = token
        self._address: Any = where.removeprefix("unix:")
        self._family = socket.AF_UNIX
        if self._address == where:
            host, _, port = where.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise UsageError(
                    f"{where!r} is not HOST:PORT",
                    next_step="for instance --ec2 127.0.0.1:9999, or --ec2 unix:PATH",
                )
            self._family = socket.AF_INET
            self._address = (host, int(port))

    def run(self, event: Event) -> Result:
        return read_answer(self._call(event.to_json()))

    def probe(self, probe: Probe) -> dict[str, Any]:
        return read_probe(self._call(probe.to_json()))

    def _call(self, event: Mapping[str, Any]) -> bytes:
        try:
            with self._connect() as connection:
                text = handler_call.call(connection, event, self._token)
        except handler_call.NotAllowed as error:
            raise NodeLost(f"the EC2 handler at {self._where}: {error.message}") from error
        except OSError as error:
            raise NodeLost(
                f"the EC2 handler at {self._where} cannot be reached: {error.strerror or error}",
                next_step="start `punch ec2-handler` there, or give another --ec2 HOST:PORT",
            ) from error
        if not text:
            raise NodeLost(
                f"the EC2 handler at {self._where} ended before it gave a result", may_pass=True
            )
        return text

    def _connect(self) -> socket.socket:
        if self._family == socket.AF_UNIX:
            connection = socket.socket(socket.AF_UNIX)
            try:
                with handler_call.unix_address(self._address) as address:
                    connection.connect(address)
            except OSError:
                connection.close()
                raise
            return connection
        connection = socket.create_connection(self._address, timeout=10.0)
        _keep_alive(connection)
        return connection

    def stop(self) -> None:
        """Nothing: the handler looks into the bucket, and sees when our process ends."""


def read_answer(text: bytes, log_tail: str = "") -> Result:
    """The result in what a function or a handler answered.

    Args:
        text: the answer.
        log_tail: the end of the invocation's log, where there is one.

    Raises:
        NodeLost: the answer is an error of the worker itself.
    """
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NodeLost(f"the node's answer is not JSON: {text[:200]!r}") from error
    if isinstance(payload, Mapping) and "errorType" in payload:
        result = parse_error(payload)
        if result is None:
            raise _worker_failed(payload, log_tail)
        return result
    if isinstance(payload, Mapping) and "error" in payload:
        raise NodeLost(f"the EC2 handler refused the event: {payload['error']}")
    try:
        return Result.from_json(payload)
    except PunchError as error:
        raise NodeLost(f"{error.message}: {text[:200]!r}", next_step=error.next_step) from error


def read_probe(text: bytes, log_tail: str = "") -> dict[str, Any]:
    """What a function or a handler answered to a probe (node/probe.py has its form).

    Raises:
        NodeLost: the answer is an error; a release without probes refuses it as an event.
    """
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NodeLost(
            f"the node's answer is not JSON: {text[:200]!r}", next_step="look into its log"
        ) from error
    if not isinstance(payload, Mapping):
        raise NodeLost(
            f"the node answered {text[:200]!r}, which is no answer to a probe: it is none of ours",
            next_step="check --function, or deploy this release there",
        )
    said = str(payload.get("errorMessage") or payload.get("error") or "")
    if "`ids`" in said or "'ids'" in said:
        raise NodeLost(
            "the node knows no probes: its punchlib is older than this one",
            next_step="deploy this release there",
        )
    if "errorType" in payload:
        lost = _worker_failed(payload, log_tail)
        lost.next_step = lost.next_step or "look into its log"
        raise lost
    if "probe" not in payload:
        raise NodeLost(
            f"the node did not answer the probe: {said or text[:200]!r}",
            next_step="deploy this release there",
        )
    return dict(payload)


def _worker_failed(payload: Mapping[str, Any], log_tail: str) -> NodeLost:
    """Why there is no result: the worker crashed, or ran out of memory or of time."""
    kind, message = str(payload["errorType"]), str(payload.get("errorMessage", ""))
    said = f"the worker failed: {kind}: {message}"
    # What Lambda writes at the end of each invocation's log.
    report = re.search(r"Memory Size: (\d+) MB\s+Max Memory Used: (\d+) MB", log_tail)
    size, used = map(int, report.groups()) if report else (0, 0)
    if "OutOfMemory" in kind or (report and used >= size):
        had = f" ({used} of {size} MB)" if report else ""
        more = f"--parameter MemorySize={2 * size}" if report else "--parameter MemorySize=MB"
        return NodeLost(
            f"the worker ran out of memory{had}: {kind}: {message}",
            next_step=f"give the function more: punch deploy {more}",
            log_tail=log_tail,
        )
    crashed = "Runtime.ExitError" in (kind, *message.split()) or "signal: killed" in message
    if crashed:
        said += " (its process died: out of memory, or killed)"
    return NodeLost(said, log_tail=log_tail, may_pass=crashed)


def _keep_alive(connection: socket.socket) -> None:
    """NATs forget a connection that is silent for minutes."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in (
        (socket.TCP_KEEPIDLE, 30),
        (socket.TCP_KEEPINTVL, 10),
        (socket.TCP_KEEPCNT, 6),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, seconds)
