"""Every state of a stack has one next step, against a CloudFormation that refuses as AWS does."""

from __future__ import annotations

import botocore.session
import pytest

from punchlib.aws import stacks
from punchlib.aws.stacks import NEXT, Next, Stack
from punchlib.config import Config
from punchlib.errors import PunchError, UsageError
from tests.support.strict_stacks import Cloud, FakeStack

SMALL = """
Parameters:
  Size: {Type: String, Default: small}
Resources:
  Bucket:
    Type: AWS::S3::Bucket
    DeletionPolicy: RetainExceptOnCreate
    Properties: {BucketName: !Sub "${AWS::StackName}-bucket"}
  Log: {Type: AWS::Logs::LogGroup, Properties: {LogGroupName: !Sub "/${AWS::StackName}"}}
  Thing: {Type: AWS::SQS::Queue, Properties: {QueueName: !Ref Size}}
Outputs:
  Size: {Value: !Ref Size}
"""


@pytest.fixture
def stack(strict: Cloud, wish: object) -> Stack:
    return Stack(wish.stack, Config.from_env())  # type: ignore[attr-defined]


def bring(stack: Stack, text: str = SMALL, **given: str) -> None:
    proposal = stack.propose(text, given)
    assert proposal is not None
    stack.execute(proposal)


def test_every_state_that_aws_knows_has_a_next_step() -> None:
    model = botocore.session.get_session().get_service_model("cloudformation")
    known = model.shape_for("StackStatus").metadata["enum"]
    assert set(NEXT) == {"", *known}


def test_made_changed_and_left_alone(stack: Stack) -> None:
    bring(stack, Size="large")
    assert stack.outputs() == {"Size": "large"}
    assert set(stack.resources()) == {"Bucket", "Log", "Thing"}
    assert stack.propose(SMALL, {}) is None  # what was given is kept
    bring(stack, Size="huge")
    assert (stack.status(), stack.outputs()) == ("UPDATE_COMPLETE", {"Size": "huge"})


@pytest.mark.parametrize("status", [s for s in NEXT if s])
def test_from_every_state_to_a_stack_that_is_up_to_date(
    strict: Cloud, stack: Stack, status: str
) -> None:
    if NEXT[status] is not Next.CREATE:
        bring(stack, Size="before")
    else:
        strict.stacks[stack.name] = FakeStack(stack.name)
    fake = strict.stacks[stack.name]
    fake.status = status
    if NEXT[status] is Next.WAIT:
        fake.become(status, "CREATE_COMPLETE" if "DELETE" not in status else "DELETE_COMPLETE")
    if NEXT[status] is Next.DELETE or status == "DELETE_IN_PROGRESS":
        # A stack that failed to be made holds nothing of use, and no bucket either.
        strict.ministack.client("s3").delete_bucket(Bucket=f"{stack.name}-bucket")
        del fake.resources["Bucket"]
    if status == "DELETE_IN_PROGRESS":
        strict.ministack.client("logs").delete_log_group(logGroupName=f"/{stack.name}")

    bring(stack, Size="after")

    assert stack.outputs() == {"Size": "after"}
    assert stack.status() in ("CREATE_COMPLETE", "UPDATE_COMPLETE")


def test_a_failed_first_creation_is_named_and_can_be_repeated(strict: Cloud, stack: Stack) -> None:
    strict.fail["Thing"] = "you may not have this"
    with pytest.raises(PunchError, match=r"ROLLBACK_COMPLETE\n.*Thing .*you may not have this"):
        bring(stack)

    bring(stack)  # its bucket's name is free: RetainExceptOnCreate
    assert stack.status() == "CREATE_COMPLETE"


def test_a_failed_update_is_named_and_can_be_repeated(strict: Cloud, stack: Stack) -> None:
    bring(stack)
    more = SMALL.replace("Outputs:", "  More: {Type: AWS::SQS::Queue}\nOutputs:")
    strict.fail["More"] = "no more"
    strict.stuck["rollback"] = ""
    with pytest.raises(PunchError, match=r"UPDATE_ROLLBACK_FAILED\n.*no more"):
        bring(stack, more)

    bring(stack, more)
    assert "More" in stack.resources()


def test_a_parameter_that_the_template_has_lost_is_dropped(stack: Stack) -> None:
    bring(stack, SMALL.replace("Resources:", "  Old: {Type: String}\nResources:", 1), Old="x")

    bring(stack, SMALL, Size="s")

    assert stack.parameters() == {"Size": "s"}


def test_what_cannot_be_deleted_is_named_and_tried_again(strict: Cloud, stack: Stack) -> None:
    bring(stack)
    strict.stuck["Thing"] = "somebody uses it"
    with pytest.raises(PunchError, match=r"DELETE_FAILED\n.*somebody uses it"):
        stack.delete()

    stack.delete()
    assert stack.status() == ""
    stack.delete()  # nothing is nothing


def test_a_name_that_is_taken_is_said_before_anything_is_made(strict: Cloud, stack: Stack) -> None:
    strict.ministack.client("logs").create_log_group(logGroupName=f"/{stack.name}")
    with pytest.raises(PunchError, match=f"already exists: /{stack.name}"):
        bring(stack)
    assert strict.stacks[stack.name].status != "CREATE_COMPLETE"
    strict.ministack.client("logs").delete_log_group(logGroupName=f"/{stack.name}")
    bring(stack)


def test_a_change_set_thrown_away_leaves_nothing(strict: Cloud, stack: Stack) -> None:
    proposal = stack.propose(SMALL, {})
    assert proposal is not None and len(proposal.changes) == 3

    stack.discard(proposal)

    assert not strict.change_sets
    stack.delete()
    assert stack.status() == ""


def test_what_does_not_settle_ends(
    strict: Cloud, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(stack)
    strict.stacks[stack.name].status = "UPDATE_IN_PROGRESS"
    monkeypatch.setattr(stacks, "TIMEOUT", 0.5)
    with pytest.raises(PunchError, match="still UPDATE_IN_PROGRESS"):
        bring(stack)


def test_a_wrong_parameter_is_the_users(stack: Stack) -> None:
    with pytest.raises(UsageError, match="no parameter Siz"):
        stack.propose(SMALL, {"Siz": "x"})
