"""`invoke-lambda.py ID FOLDER {lambda|ec2|FUNCTION}`: starts one script on another node.

`lambda` invokes the function that PUNCH_FUNCTION names (default `lambda`), any other word the
function of that name, asynchronously; `ec2` hands the event to the EC2 handler at PASH_EC2_HOST
(default 127.0.0.1), port 9999, and does not wait for the script's end.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Sequence

from punchlib.config import Config
from punchlib.errors import PunchError, UsageError
from punchlib.runtime import storage

_USAGE = "python3.9 aws/invoke-lambda.py ID FOLDER {lambda|ec2|FUNCTION}"
#: A function's name, with an alias or a version, or its ARN.
_FUNCTION = re.compile(r"[\w:$-]{1,170}", re.ASCII)
EC2_PORT = 9999


def event(script_id: str, folder: str) -> bytes:
    """The event for one script, with the scope of the job that we belong to."""
    body: dict[str, object] = {"ids": [script_id], "folder_ids": [folder]}
    # Not `commit`: no runner waits for this node's result, so its own handler completes its puts.
    for field, variable in (("job_id", "PASH_JOB_ID"), ("job_key", "PUNCH_JOB_KEY")):
        if os.environ.get(variable):
            body[field] = os.environ[variable]
    return json.dumps(body).encode()


def invoke_lambda(config: Config, function: str, payload: bytes) -> None:
    """Invokes a function; returns as soon as AWS has taken the event.

    Raises:
        PunchError: AWS refused.
    """
    from punchlib.aws.clients import client
    from punchlib.aws.errors import translate

    request = {"FunctionName": function, "InvocationType": "Event", "Payload": payload}
    try:
        client("lambda", config).invoke(**request)
    except Exception as error:
        ours = translate(error, f"the function {function}", PunchError)
        if ours is None:
            raise
        ours.next_step = ours.next_step or f"check the name, and the region {config.region}"
        raise ours from error


def invoke_ec2(payload: bytes) -> None:
    """Hands the event to the EC2 handler.

    Raises:
        PunchError: nobody listens there.
    """
    host = os.environ.get("PASH_EC2_HOST") or "127.0.0.1"
    try:
        with socket.create_connection((host, EC2_PORT), timeout=10) as connection:
            connection.sendall(payload)
            connection.shutdown(socket.SHUT_WR)
    except OSError as error:
        raise PunchError(
            f"no EC2 handler at {host}:{EC2_PORT}: {error}",
            next_step="start it there with `punch ec2-handler`, or set PASH_EC2_HOST",
        ) from error


def main(argv: Sequence[str]) -> int:
    def body() -> int:
        match list(argv):
            case [script_id, folder, "ec2"]:
                invoke_ec2(event(script_id, folder))
            case [script_id, folder, name] if _FUNCTION.fullmatch(name):
                config = Config.from_env()
                function = config.function if name == "lambda" else name
                invoke_lambda(config, function, event(script_id, folder))
            case _:
                raise UsageError("wrong arguments", next_step=_USAGE)
        return 0

    return storage.run("invoke-lambda", body)
