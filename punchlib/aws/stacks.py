"""CloudFormation: a stack from whatever state it is in to the state that a template describes.

What a stack's state allows, and so what comes next, is one table (`NEXT`). A change is made as a
change set first, which can be shown and thrown away.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from punchlib.aws import errors
from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.errors import PunchError, UsageError

#: Seconds; a role takes AWS up to a minute, an instance two, a function's deletion some more.
TIMEOUT = 1800.0
_POLL = (0.2, 3.0)


class Next(Enum):
    """What must be done with a stack before it can have a template's resources."""

    CREATE = auto()
    UPDATE = auto()
    #: It holds nothing that works: it can only be deleted.
    DELETE = auto()
    #: Its last update failed, and so did the way back: the way back is tried again.
    ROLL_BACK = auto()
    #: Somebody else's operation is under way.
    WAIT = auto()


#: "" is a stack that is not there.
NEXT: Mapping[str, Next] = {
    "": Next.CREATE,
    "DELETE_COMPLETE": Next.CREATE,
    "REVIEW_IN_PROGRESS": Next.CREATE,  # a first change set was made and not executed
    "CREATE_COMPLETE": Next.UPDATE,
    "UPDATE_COMPLETE": Next.UPDATE,
    "UPDATE_FAILED": Next.UPDATE,
    "UPDATE_ROLLBACK_COMPLETE": Next.UPDATE,
    "IMPORT_COMPLETE": Next.UPDATE,
    "IMPORT_ROLLBACK_COMPLETE": Next.UPDATE,
    "IMPORT_ROLLBACK_FAILED": Next.UPDATE,
    "CREATE_FAILED": Next.DELETE,
    "ROLLBACK_COMPLETE": Next.DELETE,
    "ROLLBACK_FAILED": Next.DELETE,
    "DELETE_FAILED": Next.DELETE,
    "UPDATE_ROLLBACK_FAILED": Next.ROLL_BACK,
    "CREATE_IN_PROGRESS": Next.WAIT,
    "DELETE_IN_PROGRESS": Next.WAIT,
    "IMPORT_IN_PROGRESS": Next.WAIT,
    "IMPORT_ROLLBACK_IN_PROGRESS": Next.WAIT,
    "ROLLBACK_IN_PROGRESS": Next.WAIT,
    "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS": Next.WAIT,
    "UPDATE_IN_PROGRESS": Next.WAIT,
    "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS": Next.WAIT,
    "UPDATE_ROLLBACK_IN_PROGRESS": Next.WAIT,
}
_WELL = ("CREATE_COMPLETE", "UPDATE_COMPLETE")


@dataclass(frozen=True)
class Change:
    """One resource's."""

    action: str
    resource: str
    kind: str
    replaced: bool

    def __str__(self) -> str:
        how = f"{self.action.lower()} (replaced)" if self.replaced else self.action.lower()
        return f"{how:8} {self.resource} ({self.kind})"


@dataclass(frozen=True)
class ChangeSet:
    """What a template would change.

    Attributes:
        id: its ARN.
        creates: the stack is not there yet.
    """

    id: str
    creates: bool
    changes: tuple[Change, ...]


class Stack:
    """One stack.

    Args:
        name: its name.
        config: region and endpoint.
        say: is told, in a line each, what takes time.
    """

    def __init__(
        self, name: str, config: Config, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.name = name
        self.region = config.region
        self._say = say
        self._api = client("cloudformation", config)

    def status(self) -> str:
        """One of the keys of `NEXT`."""
        return str(self._describe().get("StackStatus", ""))

    def outputs(self) -> dict[str, str]:
        """Its outputs by name; none where it is not there."""
        described = self._describe().get("Outputs", [])
        return {o["OutputKey"]: o["OutputValue"] for o in described}

    def parameters(self) -> dict[str, str]:
        """Its parameters by name; none where it is not there."""
        described = self._describe().get("Parameters", [])
        return {p["ParameterKey"]: p.get("ParameterValue", "") for p in described}

    def resources(self) -> dict[str, tuple[str, str]]:
        """Logical name -> (type, physical name) of what it holds now."""
        if not self.status():
            return {}
        with self._translated():
            pages = self._api.get_paginator("list_stack_resources").paginate(StackName=self.name)
            return {
                r["LogicalResourceId"]: (r["ResourceType"], r.get("PhysicalResourceId", ""))
                for page in pages
                for r in page["StackResourceSummaries"]
                if r["ResourceStatus"] != "DELETE_COMPLETE" and r.get("PhysicalResourceId")
            }

    def propose(self, template: str, given: Mapping[str, str]) -> ChangeSet | None:
        """Makes a change set, once the stack is in a state that allows one.

        Args:
            template: the text of the template.
            given: parameters; one that is not given keeps its value.

        Returns:
            None where there is nothing to change.

        Raises:
            UsageError: the template has no such parameter, or needs one that is not given.
            PunchError: AWS refused; the message says why.
        """
        create = self._make_ready() is Next.CREATE
        with self._translated():
            made = self._api.create_change_set(
                StackName=self.name,
                ChangeSetName=f"punch-{uuid.uuid4().hex[:12]}",
                ChangeSetType="CREATE" if create else "UPDATE",
                TemplateBody=template,
                Parameters=self._request(template, given, {} if create else self.parameters()),
                Capabilities=["CAPABILITY_IAM"],
            )
            described = self._changes(made["Id"])
        proposal = ChangeSet(made["Id"], create, tuple(map(_change, described["Changes"])))
        if described["Status"] == "CREATE_COMPLETE":
            return proposal
        reason = described.get("StatusReason", "")
        self.discard(proposal)
        if "contain changes" in reason or "No updates are to be performed" in reason:
            return None
        raise PunchError(
            f"the stack {self.name} cannot be changed like this: {reason or described['Status']}",
            next_step="correct what is named above and deploy again",
        )

    def execute(self, proposal: ChangeSet) -> None:
        """Makes what a change set says, and waits for it.

        Raises:
            PunchError: it failed; the message names each resource that did, and why.
        """
        started = time.time()
        with self._translated():
            self._api.execute_change_set(StackName=self.name, ChangeSetName=proposal.id)
        status = self._wait(lambda status: not status.endswith("_IN_PROGRESS"))
        if status not in _WELL:
            raise PunchError(
                f"the stack {self.name} is {status or 'gone'}" + self._failures(started),
                next_step="correct what is named above and deploy again",
            )

    def discard(self, proposal: ChangeSet) -> None:
        """Throws a change set away, and the empty stack that a first one makes."""
        with self._translated():
            # The local API's answer lacks its frame, over which botocore stumbles once all is done.
            with suppress(KeyError):
                self._api.delete_change_set(StackName=self.name, ChangeSetName=proposal.id)
            if proposal.creates and self.status() == "REVIEW_IN_PROGRESS":
                self._api.delete_stack(StackName=self.name)

    def delete(self) -> None:
        """Deletes it with what it holds, and waits; nothing where it is not there.

        Raises:
            PunchError: something of it could not be deleted; the message names it.
        """
        self._wait(lambda status: NEXT.get(status) is not Next.WAIT)
        if not self.status():
            return
        started = time.time()
        with self._translated():
            self._api.delete_stack(StackName=self.name)
        status = self._wait(lambda status: not status.endswith("_IN_PROGRESS"))
        if status:
            raise PunchError(
                f"the stack {self.name} is {status}" + self._failures(started),
                next_step="remove what is named above by hand, then try again",
            )

    def _make_ready(self) -> Next:
        """Brings the stack where it can be created or updated."""
        # Each row leads on; no stack needs more than: wait, roll back, wait, delete, create.
        for _ in range(8):
            status = self.status()
            step = NEXT.get(status)
            if step is None:
                raise PunchError(
                    f"the stack {self.name} is in a state that we do not know: {status}",
                    next_step="look at it in the CloudFormation console",
                )
            if step in (Next.CREATE, Next.UPDATE):
                return step
            if step is Next.WAIT:
                self._say(f"the stack {self.name} is {status}: waiting")
                self._wait(lambda status: NEXT.get(status) is not Next.WAIT)
            elif step is Next.DELETE:
                self._say(f"the stack {self.name} is {status}, of no use: it is deleted first")
                self.delete()
            else:
                self._say(f"the stack {self.name} is {status}: its way back is tried again")
                self._roll_back()
        raise PunchError(
            f"the stack {self.name} does not settle: {status}",
            next_step="see who else changes it: its events are in the CloudFormation console",
        )

    def _roll_back(self) -> None:
        started = time.time()
        with self._translated():
            self._api.continue_update_rollback(StackName=self.name)
        status = self._wait(lambda status: not status.endswith("_IN_PROGRESS"))
        if NEXT.get(status) is Next.ROLL_BACK:
            raise PunchError(
                f"the stack {self.name} is {status}" + self._failures(started),
                next_step="correct what is named above, or give the stack up: punch destroy",
            )

    def _request(
        self, template: str, given: Mapping[str, str], before: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        summary = self._api.get_template_summary(TemplateBody=template)["Parameters"]
        known = {p["ParameterKey"]: p for p in summary}
        if unknown := sorted(given.keys() - known.keys()):
            raise UsageError(
                f"the template has no parameter {', '.join(unknown)}",
                next_step=f"it has {', '.join(sorted(known))}",
            )
        # One of an earlier template that this one no longer has is not passed on.
        kept = [name for name in before if name in known and name not in given]
        have = {*given, *kept}
        missing = [n for n, p in known.items() if "DefaultValue" not in p and n not in have]
        if missing:
            raise UsageError(f"the template needs the parameter {', '.join(missing)}")
        return [
            *({"ParameterKey": n, "ParameterValue": v} for n, v in given.items()),
            *({"ParameterKey": n, "UsePreviousValue": True} for n in kept),
        ]

    def _changes(self, change_set: str) -> dict[str, Any]:
        for pause in _pauses():
            described: dict[str, Any] = self._api.describe_change_set(
                StackName=self.name, ChangeSetName=change_set
            )
            if described["Status"] in ("CREATE_COMPLETE", "FAILED"):
                break
            time.sleep(pause)
        return described

    def _wait(self, until: Callable[[str], bool]) -> str:
        for pause in _pauses():
            status = self.status()
            if until(status):
                return status
            time.sleep(pause)
        raise PunchError(
            f"the stack {self.name} is still {status} after {TIMEOUT:.0f} s",
            next_step="look at its events in the CloudFormation console",
        )

    def _describe(self) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        with self._translated():
            try:
                stacks = self._api.describe_stacks(StackName=self.name)["Stacks"]
            except ClientError as error:
                if "does not exist" in str(error):
                    return {}
                raise
        return dict(stacks[0]) if stacks[0]["StackStatus"] != "DELETE_COMPLETE" else {}

    def _failures(self, since: float) -> str:
        from botocore.exceptions import ClientError

        try:
            events = self._api.describe_stack_events(StackName=self.name)["StackEvents"]
        except ClientError:
            return ""  # it has gone: nothing is left to ask
        lines = [
            f"{e['LogicalResourceId']} ({e['ResourceType']}): {e.get('ResourceStatusReason', '?')}"
            for e in reversed(events)
            if e["ResourceStatus"].endswith("_FAILED") and e["Timestamp"].timestamp() >= since - 5
        ]
        return "".join(f"\n  {line}" for line in lines)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (ClientError, BotoCoreError) as error:
            kind = UsageError if errors.is_code(error, "ValidationError") else PunchError
            ours = errors.translate(error, f"the stack {self.name}", kind)
            assert ours is not None
            ours.next_step = ours.next_step or "check the permissions listed in docs/deploy-aws.md"
            raise ours from error


def _pauses() -> Iterator[float]:
    """Short ones first; the end of them is the time-out."""
    deadline = time.monotonic() + TIMEOUT
    pause, most = _POLL
    while time.monotonic() < deadline:
        yield pause
        pause = min(pause * 1.5, most)


def _change(described: Mapping[str, Any]) -> Change:
    change = described["ResourceChange"]
    return Change(
        change["Action"],
        change["LogicalResourceId"],
        change["ResourceType"],
        change.get("Replacement") in ("True", "Conditional"),
    )
