"""Applies the CloudFormation template: to AWS, and in the same way to the local emulation.

    python -m punchlib.aws.deploy --image URI --bucket NAME [--parameter NAME=VALUE]…

The stack is made, or brought up to date when it is there; an unchanged one is left alone. What
CloudFormation says about a failed resource is what the user gets to read.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.errors import PunchError, UsageError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

STACK = "punch"
#: In the node image, and in a clone of the repository.
TEMPLATES = (Path("/opt/punch/punch.yaml"), Path("deploy/punch.yaml"))
#: Seconds; a role takes AWS up to a minute, an instance two.
TIMEOUT = 900.0
_POLL = 0.5
#: A stack whose first creation failed: it can only be deleted.
_STILLBORN = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED")


def deploy(
    parameters: Mapping[str, str],
    *,
    stack: str = STACK,
    template: Path | None = None,
    config: Config | None = None,
) -> dict[str, str]:
    """Makes the stack, or updates it.

    Args:
        parameters: the template's parameters that differ from their defaults; one that an earlier
            deployment gave and this one does not keeps its value.
        stack: its name.
        template: its template; None takes ours.
        config: region and endpoint.

    Returns:
        The stack's outputs by name.

    Raises:
        UsageError: the template cannot be found, or lacks one of the parameters.
        PunchError: AWS refused, or a resource failed; the message names it and the reason.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    body = _template(template)
    api = client("cloudformation", config or Config.from_env())
    try:
        before = _describe(api, stack)
        if before and before["StackStatus"] in _STILLBORN:
            api.delete_stack(StackName=stack)
            _wait(api, stack)
            before = None
        request = {
            "StackName": stack,
            "TemplateBody": body,
            "Parameters": _parameters(parameters, before),
            "Capabilities": ["CAPABILITY_IAM"],
        }
        started = time.time()
        try:
            api.update_stack(**request) if before else api.create_stack(**request)
        except ClientError as error:
            if "No updates are to be performed" not in str(error):
                raise
        after = _wait(api, stack)
        if after is None or after["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise PunchError(
                f"the stack {stack} is {after['StackStatus'] if after else 'gone'}"
                + "".join(f"\n  {line}" for line in _failures(api, stack, started)),
                next_step="correct what is named above and deploy again",
            )
    except ClientError as error:
        raise _refused(stack, error) from error
    except BotoCoreError as error:
        raise PunchError(
            f"CloudFormation cannot be reached: {error}",
            next_step="check the credentials, AWS_REGION and AWS_ENDPOINT_URL",
        ) from error
    return {o["OutputKey"]: o["OutputValue"] for o in after.get("Outputs", [])}


def wait_for_api(seconds: float, config: Config | None = None) -> None:
    """Waits until CloudFormation answers, or `seconds` have gone: `deploy` then says what is wrong.

    The local API starts at the same time as the deployment.
    """
    from botocore.exceptions import BotoCoreError

    api = client(
        "cloudformation",
        config or Config.from_env(),
        connect_timeout=1,
        retries={"total_max_attempts": 1},
    )
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            api.list_stacks()
            return
        except BotoCoreError:
            time.sleep(0.1)


def _template(path: Path | None) -> str:
    for candidate in (path,) if path else TEMPLATES:
        if candidate.is_file():
            return candidate.read_text(encoding="utf-8")
    raise UsageError(
        f"no template at {path or ' or '.join(map(str, TEMPLATES))}",
        next_step="run this in a clone of the repository, or name it with --template",
    )


def _parameters(given: Mapping[str, str], before: dict[str, Any] | None) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = [
        {"ParameterKey": name, "ParameterValue": value} for name, value in given.items()
    ]
    kept = (p["ParameterKey"] for p in (before or {}).get("Parameters", []))
    out += [{"ParameterKey": k, "UsePreviousValue": True} for k in kept if k not in given]
    return out


def _describe(api: Any, stack: str) -> dict[str, Any] | None:
    from botocore.exceptions import ClientError

    try:
        described: dict[str, Any] = api.describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return None if described["StackStatus"] == "DELETE_COMPLETE" else described


def _wait(api: Any, stack: str) -> dict[str, Any] | None:
    deadline = time.monotonic() + TIMEOUT
    while (now := _describe(api, stack)) and now["StackStatus"].endswith("_IN_PROGRESS"):
        if time.monotonic() > deadline:
            raise PunchError(
                f"the stack {stack} is still {now['StackStatus']} after {TIMEOUT:.0f} s",
                next_step="look at its events in the CloudFormation console",
            )
        time.sleep(_POLL)
    return now


def _failures(api: Any, stack: str, since: float) -> list[str]:
    events = api.describe_stack_events(StackName=stack)["StackEvents"]
    return [
        f"{e['LogicalResourceId']} ({e['ResourceType']}): {e.get('ResourceStatusReason', '?')}"
        for e in reversed(events)
        if e["ResourceStatus"].endswith("_FAILED") and e["Timestamp"].timestamp() >= since - 5
    ]


def _refused(stack: str, error: ClientError) -> PunchError:
    code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
    if code == "ValidationError":
        return UsageError(f"the stack {stack}: {message}", next_step="see docs/deploy-aws.md")
    return PunchError(
        f"the stack {stack}: {code}: {message}",
        next_step="check the permissions listed in docs/deploy-aws.md",
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="punchlib.aws.deploy", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--image", required=True, help="the Lambda image, by digest")
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--stack", default=STACK)
    parser.add_argument("--template", type=Path)
    parser.add_argument(
        "--wait", type=float, default=0, metavar="S", help="give the API S seconds to come up"
    )
    parser.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args(argv)
    parameters = {"ImageUri": arguments.image, "BucketName": arguments.bucket}
    try:
        for item in arguments.parameter:
            name, equals, value = item.partition("=")
            if not equals:
                raise UsageError(f"--parameter {item} is not NAME=VALUE")
            parameters[name] = value
        wait_for_api(arguments.wait)
        outputs = deploy(parameters, stack=arguments.stack, template=arguments.template)
    except PunchError as error:
        print(f"deploy: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps({"v": 1, "stack": arguments.stack, "outputs": outputs}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
