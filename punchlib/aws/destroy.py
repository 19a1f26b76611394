"""What `punch destroy` does: lists what there is, removes it, and looks if anything is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from punchlib.aws import errors
from punchlib.aws.account import Account, Names, translated
from punchlib.aws.clients import client
from punchlib.aws.deploy import REPOSITORIES, Declined, Desk
from punchlib.aws.images import Repositories
from punchlib.aws.stacks import Stack
from punchlib.config import Config
from punchlib.errors import PunchError


@dataclass(frozen=True)
class Thing:
    """Something that a deployment made or took over.

    Attributes:
        what: for people.
        is_there: asks AWS.
        remove: None where a stack takes it along.
    """

    what: str
    is_there: Callable[[], bool]
    remove: Callable[[], None] | None = None


def destroy(stack_name: str, desk: Desk, config: Config, *, purge: bool = False) -> list[str]:
    """Removes a deployment.

    Args:
        stack_name: the stack's name.
        desk: shows what will go, and asks.
        config: region and endpoint.
        purge: the bucket with all that is in it, and the table, go as well.

    Returns:
        A line for each thing that was kept.

    Raises:
        Declined: the answer was no.
        PunchError: something could not be removed, or is still there in the end.
    """
    account = Account(config).id()
    stack = Stack(stack_name, config, desk.say)
    registry = Stack(f"{stack_name}-registry", config, desk.say)
    things, kept = _inventory(stack, registry, config, purge)
    there = [thing for thing in things if thing.is_there()]
    if not there:
        desk.say(f"nothing of {stack_name} is in account {account}, region {config.region}")
        return [line for line, is_there in kept if is_there()]
    go = [f"account {account}, region {config.region}:"]
    go += [f"remove  {thing.what}" for thing in there]
    go += [f"keep    {line}" for line, is_there in kept if is_there()]
    if not desk.ask(go):
        raise Declined("nothing was removed")
    # Images before their repositories, which must be empty; data after the function that writes it.
    desk.say("removing; a few minutes")
    repositories = Repositories(config)
    stack.delete()
    for name in _repositories(stack_name):
        repositories.remove(name, repositories.digests(name))
    registry.delete()
    for thing in there:
        if thing.remove and thing.is_there():
            thing.remove()
    if left := [thing.what for thing in there if thing.is_there()]:
        raise PunchError(
            "still there: " + "; ".join(left), next_step="remove it by hand, or try again"
        )
    desk.say("looked again: all of it has gone")
    return [line for line, is_there in kept if is_there()]


def _repositories(stack_name: str) -> list[str]:
    return [f"{stack_name.lower()}-{name}" for name in REPOSITORIES.values()]


def _inventory(
    stack: Stack, registry: Stack, config: Config, purge: bool
) -> tuple[list[Thing], list[tuple[str, Callable[[], bool]]]]:
    """What goes, and what stays."""
    logs, repositories = client("logs", config), Repositories(config)
    parameters = stack.parameters()
    things = []
    for each in (stack, registry):
        if (status := each.status()) and status != "DELETE_COMPLETE":
            held = ", ".join(sorted(each.resources())) or "nothing"
            things.append(Thing(f"the stack {each.name} ({held})", partial(_stands, each)))
    for name in _repositories(stack.name):
        if count := len(repositories.digests(name)):
            is_there = partial(_holds_images, repositories, name)
            things.append(Thing(f"{count} images in {name}", is_there))
    kept: list[tuple[str, Callable[[], bool]]] = []
    if not parameters:
        return things, kept
    names = Names(parameters["BucketName"], parameters["TableName"], parameters["FunctionName"])
    things.append(
        Thing(
            f"the log {names.log}",
            lambda: _log_is_there(logs, names.log),
            lambda: _delete_log(logs, names.log),
        )
    )
    data = [_bucket(names.bucket, config), _table(names.table, config)]
    if purge:
        things += data
    else:
        kept += [(f"{thing.what} (--purge removes it)", thing.is_there) for thing in data]
    return things, kept


def _stands(stack: Stack) -> bool:
    return bool(stack.status())


def _holds_images(repositories: Repositories, name: str) -> bool:
    return bool(repositories.digests(name))


def _log_is_there(logs: Any, name: str) -> bool:
    with translated(f"the log group {name}"):
        groups = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    return any(group["logGroupName"] == name for group in groups)


def _delete_log(logs: Any, name: str) -> None:
    with translated(f"the log group {name}"):
        logs.delete_log_group(logGroupName=name)


def _bucket(name: str, config: Config) -> Thing:
    s3 = client("s3", config)

    def remove() -> None:
        with translated(f"the bucket {name}"):
            for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
                found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
                keys = [{"Key": v["Key"], "VersionId": v["VersionId"]} for v in found]
                if keys:
                    s3.delete_objects(Bucket=name, Delete={"Objects": keys, "Quiet": True})
            for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=name):
                for upload in page.get("Uploads", []):
                    s3.abort_multipart_upload(
                        Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
            s3.delete_bucket(Bucket=name)

    return Thing(
        f"the bucket {name} and all that is in it",
        lambda: _exists(lambda: s3.head_bucket(Bucket=name), "404", "NoSuchBucket"),
        remove,
    )


def _table(name: str, config: Config) -> Thing:
    database = client("dynamodb", config)

    def remove() -> None:
        with translated(f"the table {name}"):
            database.delete_table(TableName=name)
            database.get_waiter("table_not_exists").wait(
                TableName=name, WaiterConfig={"Delay": 2, "MaxAttempts": 60}
            )

    return Thing(
        f"the table {name}",
        lambda: _exists(
            lambda: database.describe_table(TableName=name), "ResourceNotFoundException"
        ),
        remove,
    )


def _exists(ask: Callable[[], object], *absent: str) -> bool:
    from botocore.exceptions import ClientError

    with translated("the last look"):
        try:
            ask()
        except ClientError as error:
            if errors.is_code(error, *absent):
                return False
            raise
    return True
