"""`invoke-lambda.py ID FOLDER {lambda|ec2|FUNCTION}`: starts one script on another node.

`lambda` invokes the function that PUNCH_FUNCTION names (default `lambda`), any other word the
function of that name, asynchronously; `ec2` hands the event to the EC2 handler at PASH_EC2_HOST,
port 9999, under the token that PUNCH_HANDLER_TOKEN or PUNCH_HANDLER_TOKEN_FILE gives, and does not
wait for the script's end. Without PASH_EC2_HOST it is the handler that runs us, by its door for its
own scripts; for who is no script of a handler, the one at 127.0.0.1.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping, Sequence

from punchlib.config import Config
from punchlib.errors import PunchError, UsageError
from punchlib.runtime import handler_call, storage

_USAGE = "python3.9 aws/invoke-lambda.py ID FOLDER {lambda|ec2|FUNCTION}"
#: A function's name, with an alias or a version, or its ARN.
_FUNCTION = re.compile(r"[\w:$-]{1,170}", re.ASCII)
EC2_PORT = 9999
#: Names the abstract socket at which the EC2 handler serves its own scripts.
NODE_DOOR = "PUNCH_NODE_DOOR"
#: Seconds for the handler to take an event.
TAKEN = 10.0


def event(script_id: str, folder: str) -> dict[str, object]:
    """The event for one script, with the scope of the job that we belong to."""
    body: dict[str, object] = {"ids": [script_id], "folder_ids": [folder]}
    # Not `commit`: no runner waits for this node's result, so its own handler completes its puts.
    for field, variable in (("job_id", "PASH_JOB_ID"), ("job_key", "PUNCH_JOB_KEY")):
        if os.environ.get(variable):
            body[field] = os.environ[variable]
    return body


def invoke_lambda(config: Config, function: str, payload: Mapping[str, object]) -> None:
    """Invokes a function; returns as soon as AWS has taken the event.

    Raises:
        PunchError: AWS refused.
    """
    from punchlib.aws.clients import client
    from punchlib.aws.errors import translate

    request = {
        "FunctionName": function,
        "InvocationType": "Event",
        "Payload": json.dumps(payload).encode(),
    }
    try:
        client("lambda", config).invoke(**request)
    except Exception as error:
        ours = translate(error, f"the function {function}", PunchError)
        if ours is None:
            raise
        ours.next_step = ours.next_step or f"check the name, and the region {config.region}"
        raise ours from error


def invoke_ec2(payload: Mapping[str, object]) -> None:
    """Hands the event to the EC2 handler, and stays until it says that it has it.

    Raises:
        PunchError: nobody listens there, or the handler refused.
    """
    host, own = os.environ.get("PASH_EC2_HOST"), os.environ.get(NODE_DOOR)
    # At its own scripts' door the kernel says who calls.
    token = None if own and not host else handler_call.take_token()
    where = "this node" if own and not host else f"{host or '127.0.0.1'}:{EC2_PORT}"
    try:
        with _connect(host, own) as connection:
            # An older handler says nothing before the script's end, and does not mind who leaves.
            request = {**payload, "wait": False}
            answer = _parse(handler_call.call(connection, request, token, patience=TAKEN))
    except (TimeoutError, ConnectionResetError):
        return
    except OSError as error:
        raise PunchError(
            f"no EC2 handler at {where}: {error}",
            next_step="start it there with `punch ec2-handler`, or set PASH_EC2_HOST",
        ) from error
    except handler_call.NotAllowed as error:
        raise PunchError(f"the EC2 handler at {where}: {error.message}") from error
    if "error" in answer:
        raise PunchError(f"the EC2 handler at {where}: {answer['error']}")


def _connect(host: str | None, own: str | None) -> socket.socket:
    if host or not own:
        return socket.create_connection((host or "127.0.0.1", EC2_PORT), timeout=TAKEN)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(TAKEN)
    try:
        connection.connect(f"\0{own}")
    except BaseException:
        connection.close()
        raise
    return connection


def _parse(text: bytes) -> Mapping[str, object]:
    """What the handler answered; nothing, where it says nothing that we know."""
    try:
        answer = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


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
