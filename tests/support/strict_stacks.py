"""A CloudFormation that refuses what AWS refuses, in front of MiniStack's other services.

MiniStack's own lets much pass: names that are taken, updates of a stack that failed to be made,
parameters that no template has; it knows no deletion policy. Here a stack goes through AWS's
states, and buckets, tables, log groups, functions and repositories are really made and deleted, in
MiniStack. Everything else is only a name.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from botocore.exceptions import ClientError

from tests.support.ministack import MiniStack
from tests.support.strict_templates import (
    Evaluation,
    Refused,
    Resource,
    given_parameters,
    read_template,
)

#: Looks at a stack until what it does has been done.
LOOKS = 2


@dataclass
class FakeStack:
    name: str
    status: str = "REVIEW_IN_PROGRESS"
    then: str = ""
    looks: int = 0
    template: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    resources: dict[str, Resource] = field(default_factory=dict)
    events: list[tuple[str, str, str, str]] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: f"arn:aws:cloudformation:::stack/{uuid.uuid4()}")

    def become(self, during: str, then: str) -> None:
        self.status, self.then, self.looks = during, then, LOOKS

    def look(self) -> None:
        if self.looks:
            self.looks -= 1
            if not self.looks:
                self.status = self.then


class Cloud:
    """The stacks, and what may be set from a test.

    Attributes:
        fail: logical name -> why it cannot be made, once.
        stuck: logical name -> why it cannot be deleted, once.
        calls: the actions that were asked for.
    """

    def __init__(self, ministack: MiniStack) -> None:
        self.ministack = ministack
        self.stacks: dict[str, FakeStack] = {}
        self.change_sets: dict[str, dict[str, Any]] = {}
        self.fail: dict[str, str] = {}
        self.stuck: dict[str, str] = {}
        self.calls: list[str] = []
        self._clients: dict[str, Any] = {}

    # --- the API ------------------------------------------------------------------------------

    def call(self, action: str, q: dict[str, str]) -> str:
        self.calls.append(action)
        method = getattr(self, "do_" + re.sub(r"(?<!^)(?=[A-Z])", "_", action).lower())
        return str(method(q))

    def _stack(self, q: dict[str, str]) -> FakeStack:
        found = self.stacks.get(q["StackName"])
        if found is None or found.status == "DELETE_COMPLETE":
            raise Refused("ValidationError", f"Stack with id {q['StackName']} does not exist")
        return found

    def do_describe_stacks(self, q: dict[str, str]) -> str:
        stack = self._stack(q)
        stack.look()
        if stack.status == "DELETE_COMPLETE":
            return self.do_describe_stacks(q)
        made = [{"OutputKey": k, "OutputValue": v} for k, v in stack.outputs.items()]
        given = [{"ParameterKey": k, "ParameterValue": v} for k, v in stack.parameters.items()]
        body = f"{_xml(StackName=stack.name, StackId=stack.id, StackStatus=stack.status)}"
        body += "<CreationTime>2026-01-01T00:00:00Z</CreationTime>"
        body += _list("Outputs", made) + _list("Parameters", given)
        return f"<Stacks><member>{body}</member></Stacks>"

    def do_list_stack_resources(self, q: dict[str, str]) -> str:
        rows = [
            {
                "LogicalResourceId": name,
                "PhysicalResourceId": r.physical,
                "ResourceType": r.kind,
                "ResourceStatus": "CREATE_COMPLETE",
                "LastUpdatedTimestamp": "2026-01-01T00:00:00Z",
            }
            for name, r in self._stack(q).resources.items()
        ]
        return _list("StackResourceSummaries", rows)

    def do_describe_stack_events(self, q: dict[str, str]) -> str:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        rows = [
            {
                "StackId": "s", "EventId": str(n), "StackName": q["StackName"],
                "LogicalResourceId": name, "ResourceType": kind, "ResourceStatus": status,
                "ResourceStatusReason": why, "Timestamp": now,
            }
            for n, (name, kind, status, why) in enumerate(self.stacks[q["StackName"]].events)
        ]  # fmt: skip
        return _list("StackEvents", rows[::-1])

    def do_get_template_summary(self, q: dict[str, str]) -> str:
        rows = [
            {"ParameterKey": k} | ({"DefaultValue": str(p["Default"])} if "Default" in p else {})
            for k, p in read_template(q["TemplateBody"]).get("Parameters", {}).items()
        ]
        return _list("Parameters", rows)

    def do_create_change_set(self, q: dict[str, str]) -> str:
        creates = q["ChangeSetType"] == "CREATE"
        stack = self.stacks.get(q["StackName"])
        gone = stack is None or stack.status == "DELETE_COMPLETE"
        if creates:
            if not gone and stack and stack.status != "REVIEW_IN_PROGRESS":
                raise Refused("AlreadyExistsException", f"Stack [{stack.name}] already exists")
            if gone or stack is None:
                stack = self.stacks[q["StackName"]] = FakeStack(q["StackName"])
        elif gone or stack is None:
            raise Refused("ValidationError", f"Stack [{q['StackName']}] does not exist")
        elif stack.status not in _UPDATABLE:
            raise Refused(
                "ValidationError",
                f"Stack:{stack.id} is in {stack.status} state and can not be updated.",
            )
        template = read_template(q["TemplateBody"])
        parameters = given_parameters(q, template, {} if creates else stack.parameters)
        named = any("IAM" in r["Type"] for r in template["Resources"].values())
        if named and "CAPABILITY_IAM" not in q.values():
            raise Refused("InsufficientCapabilitiesException", "Requires: [CAPABILITY_IAM]")
        wanted = Evaluation(template, parameters, stack.name).resources()
        changes, status, why = _difference(stack.resources, wanted), "CREATE_COMPLETE", ""
        if not changes:
            status, why = "FAILED", "The submitted information didn't contain changes."
        for name in wanted.keys() - stack.resources.keys():
            if self._exists(wanted[name]):
                status = "FAILED"
                why = (
                    f"Resource {name} already exists: {wanted[name].physical}"
                    " (AWS::EarlyValidation::ResourceExistenceCheck)"
                )
        found = f"arn:aws:cloudformation:::changeSet/{uuid.uuid4()}"
        self.change_sets[found] = {
            "stack": stack, "creates": creates, "template": template, "parameters": parameters,
            "wanted": wanted, "changes": changes, "status": status, "why": why,
        }  # fmt: skip
        return _xml(Id=found, StackId=stack.id)

    def do_describe_change_set(self, q: dict[str, str]) -> str:
        found = self.change_sets[q["ChangeSetName"]]
        changes = "".join(
            f"<member><Type>Resource</Type><ResourceChange>{_xml(**c)}</ResourceChange></member>"
            for c in found["changes"]
        )
        return (
            _xml(Status=found["status"], StatusReason=found["why"])
            + f"<Changes>{changes}</Changes>"
        )

    def do_delete_change_set(self, q: dict[str, str]) -> str:
        del self.change_sets[q["ChangeSetName"]]
        return ""

    def do_execute_change_set(self, q: dict[str, str]) -> str:
        found = self.change_sets.pop(q["ChangeSetName"])
        if found["status"] != "CREATE_COMPLETE":
            raise Refused("InvalidChangeSetStatusException", "it is not AVAILABLE")
        stack, wanted, word = found["stack"], found["wanted"], "UPDATE"
        if found["creates"]:
            word = "CREATE"
        before = dict(stack.resources)
        made: list[str] = []
        for name, resource in wanted.items():
            if name in before:
                stack.resources[name] = resource
                self._change(before[name], resource)
                continue
            why = self.fail.pop(name, "")
            try:
                if not why:
                    self._make(resource)
            except ClientError as error:
                why = str(error)
            if why:
                stack.events.append((name, resource.kind, "CREATE_FAILED", why))
                for done in reversed(made):
                    if stack.resources[done].policy != "Retain":
                        self._delete(stack.resources[done])
                stack.resources = before
                if found["creates"]:
                    stack.become("ROLLBACK_IN_PROGRESS", "ROLLBACK_COMPLETE")
                elif "rollback" in self.stuck:
                    del self.stuck["rollback"]
                    stack.become("UPDATE_ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_FAILED")
                else:
                    stack.become("UPDATE_ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE")
                return ""
            stack.resources[name] = resource
            made.append(name)
        for name in before.keys() - wanted.keys():
            gone = stack.resources.pop(name)
            if gone.policy == "Delete":
                self._delete(gone)
        stack.template, stack.parameters = found["template"], found["parameters"]
        stack.outputs = Evaluation(stack.template, stack.parameters, stack.name).outputs()
        stack.become(f"{word}_IN_PROGRESS", f"{word}_COMPLETE")
        return ""

    def do_continue_update_rollback(self, q: dict[str, str]) -> str:
        stack = self._stack(q)
        if stack.status != "UPDATE_ROLLBACK_FAILED":
            raise Refused("ValidationError", f"Stack is in {stack.status} state")
        stack.become("UPDATE_ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE")
        return ""

    def do_delete_stack(self, q: dict[str, str]) -> str:
        stack = self.stacks.get(q["StackName"])
        if stack is None or stack.status == "DELETE_COMPLETE":
            return ""
        if stack.looks:
            raise Refused("ValidationError", f"Stack is in {stack.status} state")
        for name, resource in reversed(list(stack.resources.items())):
            why = self.stuck.pop(name, "")
            try:
                if not why and resource.policy == "Delete":
                    self._delete(resource)
            except ClientError as error:
                why = str(error)
            if why:
                stack.events.append((name, resource.kind, "DELETE_FAILED", why))
                stack.become("DELETE_IN_PROGRESS", "DELETE_FAILED")
                return ""
            del stack.resources[name]
        stack.become("DELETE_IN_PROGRESS", "DELETE_COMPLETE")
        return ""

    # --- what is really there -----------------------------------------------------------------

    def _service(self, resource: Resource) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """(service, how to ask for it, how to make it) of a resource that MiniStack has too."""
        name, p = resource.physical, resource.properties
        return {
            "AWS::S3::Bucket": ("s3:head_bucket:create_bucket:delete_bucket", {"Bucket": name}, {}),
            "AWS::DynamoDB::Table": (
                "dynamodb:describe_table:create_table:delete_table",
                {"TableName": name},
                {k: p[k] for k in ("BillingMode", "AttributeDefinitions", "KeySchema") if k in p},
            ),
            "AWS::Logs::LogGroup": (
                "logs:list_tags_log_group:create_log_group:delete_log_group",
                {"logGroupName": name},
                {},
            ),
            "AWS::Lambda::Function": (
                "lambda:get_function:create_function:delete_function",
                {"FunctionName": name},
                {
                    "PackageType": "Image",
                    "Code": p.get("Code"),
                    "Role": "arn:aws:iam::000000000000:role/r",
                },
            ),
            "AWS::ECR::Repository": (
                "ecr:list_images:create_repository:delete_repository",
                {"repositoryName": name},
                {"imageTagMutability": p.get("ImageTagMutability", "MUTABLE")},
            ),
        }.get(resource.kind, ("", {}, {}))

    def _do(self, resource: Resource, which: int) -> bool:
        names, key, more = self._service(resource)
        if not names:
            return False
        service, *operations = names.split(":")
        request = key | (more if which == 1 else {})
        if service not in self._clients:
            self._clients[service] = self.ministack.client(service)
        getattr(self._clients[service], operations[which])(**request)
        return True

    def _exists(self, resource: Resource) -> bool:
        try:
            return self._do(resource, 0)
        except ClientError:
            return False

    def _make(self, resource: Resource) -> None:
        self._do(resource, 1)

    def _change(self, before: Resource, after: Resource) -> None:
        if after.kind == "AWS::Lambda::Function" and before != after:
            self._clients["lambda"].update_function_code(
                FunctionName=after.physical, ImageUri=after.properties["Code"]["ImageUri"]
            )

    def _delete(self, resource: Resource) -> None:
        self._do(resource, 2)


_UPDATABLE = (
    "CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_FAILED", "UPDATE_ROLLBACK_COMPLETE",
    "IMPORT_COMPLETE", "IMPORT_ROLLBACK_COMPLETE", "IMPORT_ROLLBACK_FAILED",
)  # fmt: skip


def _difference(have: dict[str, Resource], want: dict[str, Resource]) -> list[dict[str, str]]:
    def row(action: str, name: str, r: Resource) -> dict[str, str]:
        return {"Action": action, "LogicalResourceId": name, "ResourceType": r.kind}

    changes = [row("Add", n, r) for n, r in want.items() if n not in have]
    changes += [row("Remove", n, r) for n, r in have.items() if n not in want]
    changes += [row("Modify", n, r) for n, r in want.items() if n in have and have[n] != r]
    return changes


def _xml(**fields: str) -> str:
    return "".join(f"<{k}>{escape(str(v))}</{k}>" for k, v in fields.items())


def _list(name: str, rows: list[dict[str, str]]) -> str:
    return f"<{name}>{''.join(f'<member>{_xml(**row)}</member>' for row in rows)}</{name}>"


@contextlib.contextmanager
def serve(ministack: MiniStack) -> Iterator[tuple[str, Cloud]]:
    """Serves on loopback; its address, and the stacks."""
    cloud = Cloud(ministack)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            q = dict(parse_qsl(body, keep_blank_values=True))
            action = q.pop("Action")
            try:
                with lock:
                    inner, status = cloud.call(action, q), 200
                text = (
                    f"<{action}Response><{action}Result>{inner}</{action}Result></{action}Response>"
                )
            except Refused as no:
                status = 400
                inner = _xml(Code=no.code, Message=str(no))
                text = f"<ErrorResponse><Error>{inner}</Error></ErrorResponse>"
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", cloud
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
