"""The CloudFormation templates: what they make in the local AWS, and what their policies allow."""

from __future__ import annotations

import json
import os
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from punchlib.aws.deploy import template
from punchlib.aws.stacks import Stack
from punchlib.config import Config
from punchlib.errors import PunchError, UsageError
from tests.support.ministack import MiniStack
from tests.support.strict_templates import Evaluation, read_template


@pytest.fixture
def cloud(ministack: MiniStack, monkeypatch: pytest.MonkeyPatch) -> MiniStack:
    for name, value in ministack.env.items():
        monkeypatch.setenv(name, value)
    return ministack


def bring(stack: str, text: str, **parameters: str) -> dict[str, str]:
    it = Stack(stack, Config.from_env())
    if proposal := it.propose(text, parameters):
        it.execute(proposal)
    return it.outputs()


def apply(stack: str, **parameters: str) -> dict[str, str]:
    given = {"ImageUri": "punch-lambda:local", "BucketName": f"{stack}-bucket"}
    given |= {"FunctionName": f"{stack}-f", "TableName": f"{stack}-rdv", **parameters}
    return bring(stack, template("punch"), **given)


def configuration(cloud: MiniStack, name: str) -> Any:
    return cloud.client("lambda").get_function_configuration(FunctionName=name)


def test_the_function_is_what_generated_scripts_need(cloud: MiniStack) -> None:
    outputs = apply("a")

    function = configuration(cloud, "a-f")
    assert outputs["Function"] == function["FunctionArn"]
    assert function["PackageType"] == "Image"
    assert function["MemorySize"] == 1769
    assert function["Timeout"] == 900
    assert function["EphemeralStorage"] == {"Size": 10240}
    variables = function["Environment"]["Variables"]
    assert variables["AWS_BUCKET"] == "a-bucket"
    assert (variables["PUNCH_TABLE"], variables["PUNCH_FUNCTION"]) == ("a-rdv", "a-f")
    # A replay of a failed node would come with keys of a job that is over.
    invocation = cloud.client("lambda").get_function_event_invoke_config(
        FunctionName="a-f", Qualifier="$LATEST"
    )
    assert invocation["MaximumRetryAttempts"] == 0
    assert invocation["MaximumEventAgeInSeconds"] == 60


def test_the_table_and_the_bucket_are_there(cloud: MiniStack) -> None:
    outputs = apply("b")

    table = cloud.client("dynamodb").describe_table(TableName=outputs["Table"])["Table"]
    assert table["KeySchema"] == [{"AttributeName": "key", "KeyType": "HASH"}]
    assert outputs["Bucket"] == "b-bucket"
    cloud.client("s3").head_bucket(Bucket="b-bucket")


def test_deploying_again_changes_what_is_given_and_keeps_the_rest(cloud: MiniStack) -> None:
    apply("c", Timeout="300")
    apply("c", Timeout="300")  # nothing to do
    bring("c", template("punch"), ImageUri="punch-lambda:other")

    function = configuration(cloud, "c-f")
    assert function["Timeout"] == 300
    image = cloud.client("lambda").get_function(FunctionName="c-f")["Code"]["ImageUri"]
    assert image == "punch-lambda:other"


def test_a_parameter_that_is_not_there_is_refused(cloud: MiniStack) -> None:
    with pytest.raises(UsageError, match="BucketName"):
        bring("d", template("punch"), ImageUri="x")
    with pytest.raises(UsageError, match="no parameter Nonsense"):
        bring("d", template("punch"), ImageUri="x", BucketName="b", Nonsense="1")


def test_an_api_that_is_not_there_is_one_message(
    cloud: MiniStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("punchlib.aws.clients.MAX_ATTEMPTS", 1)

    with pytest.raises(PunchError, match=r"127\.0\.0\.1:1") as refusal:
        apply("e")
    assert refusal.value.exit_code == 1 and refusal.value.next_step


def test_the_registry_template_makes_both_repositories(cloud: MiniStack) -> None:
    bring("r", template("registry"), Prefix="r")

    found = cloud.client("ecr").describe_repositories()["repositories"]
    kinds = {r["repositoryName"]: r["imageTagMutability"] for r in found}
    assert kinds["r-node"] == kinds["r-lambda"] == "IMMUTABLE"


def evaluated(**parameters: str) -> dict[str, Any]:
    """The resources that the template makes, with everything in them worked out."""
    text = read_template(template("punch"))
    given = {k: str(p["Default"]) for k, p in text["Parameters"].items() if "Default" in p}
    given |= {"ImageUri": "IMAGE", "BucketName": "BUCKET", **parameters}
    return Evaluation(text, given, "punch").resources()


_RESOURCES = evaluated()
_WITH_A_NODE = evaluated(NodeSubnet="subnet-1", NodeVpc="vpc-1", NodeAmi="ami-1")
_TABLE = "arn:aws:dynamodb:us-east-1:000000000000:table/rdv"
_LOG = "arn:aws:logs:us-east-1:000000000000:log-group:/aws/lambda/lambda"

Statement = dict[str, Any]


def _managed(name: str) -> list[Statement]:
    return list(_WITH_A_NODE[name].properties["PolicyDocument"]["Statement"])


def _of_the_function() -> list[Statement]:
    """What the function's role may: the policy that all nodes share, and its own."""
    role = _RESOURCES["FunctionRole"].properties
    assert role["ManagedPolicyArns"] == [_RESOURCES["DataPolicy"].physical]
    own = [s for p in role["Policies"] for s in p["PolicyDocument"]["Statement"]]
    return _managed("DataPolicy") + own


def allowed(statements: list[Statement], action: str, resource: str) -> bool:
    """IAM's rule for policies without conditions: an explicit Deny wins, nothing said is no."""

    def matches(statement: Statement) -> bool:
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource"}, statement
        actions, resources = (
            [value] if isinstance(value, str) else value
            for value in (statement["Action"], statement["Resource"])
        )
        return any(fnmatchcase(action, a) for a in actions) and any(
            fnmatchcase(resource, r) for r in resources
        )

    effects = {s["Effect"] for s in statements if matches(s)}
    return effects == {"Allow"}


@pytest.mark.parametrize(
    ("action", "where", "worker", "runner"),
    [
        ("s3:GetObject", "s3:::BUCKET/sls-scripts/F/a.sh", True, True),
        ("s3:GetObject", "s3:::BUCKET/in.txt", True, True),
        ("s3:PutObject", "s3:::BUCKET/out.txt", True, True),
        ("s3:AbortMultipartUpload", "s3:::BUCKET/out.txt", True, True),
        ("s3:PutObject", "s3:::BUCKET/punch-streams/J/1", True, True),
        ("s3:DeleteObject", "s3:::BUCKET/punch-streams/J/1", True, True),
        ("s3:PutObject", "s3:::BUCKET/sls-scripts/F/a.sh", False, True),
        ("s3:DeleteObject", "s3:::BUCKET/sls-scripts/F/a.sh", False, True),
        ("s3:DeleteObject", "s3:::BUCKET/in.txt", False, False),
        ("s3:PutBucketPolicy", "s3:::BUCKET", False, False),
        ("s3:GetObject", "s3:::another-bucket/in.txt", False, False),
        ("s3:ListBucket", "s3:::BUCKET", True, True),
        ("dynamodb:UpdateItem", _TABLE, True, False),
        ("dynamodb:BatchGetItem", _TABLE, True, False),
        ("dynamodb:DeleteTable", _TABLE, False, False),
        ("dynamodb:Scan", _TABLE, False, False),
        ("lambda:InvokeFunction", "lambda", False, True),
        ("lambda:UpdateFunctionCode", "lambda", False, False),
        ("logs:PutLogEvents", f"{_LOG}:log-stream:x", True, False),
        ("logs:PutLogEvents", f"{_LOG}2:log-stream:x", False, False),
        ("iam:PassRole", "lambda", False, False),
    ],
)
def test_least_privilege(action: str, where: str, worker: bool, runner: bool) -> None:
    resource = f"arn:aws:{where}" if where.startswith("s3:") else where

    assert allowed(_of_the_function(), action, resource) is worker
    assert allowed(_managed("RunnerPolicy"), action, resource) is runner


def test_the_bucket_is_reached_by_tls_only() -> None:
    (statement,) = _RESOURCES["BucketPolicy"].properties["PolicyDocument"]["Statement"]

    assert statement["Effect"] == "Deny" and statement["Principal"] == "*"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert statement["Resource"] == ["arn:aws:s3:::BUCKET", "arn:aws:s3:::BUCKET/*"]


def test_no_role_for_a_node_that_is_not_asked_for(cloud: MiniStack) -> None:
    outputs = apply("nn")

    assert "NodeProfile" not in outputs
    kinds = Stack("nn", Config.from_env()).resources()
    assert "NodeRole" not in kinds and "FunctionRole" in kinds


def test_a_node_has_no_open_port_and_its_caller_a_way_to_it() -> None:
    node = _WITH_A_NODE["Node"].properties
    assert "SecurityGroupIngress" not in _WITH_A_NODE["NodeSecurityGroup"].properties
    admitting = evaluated(NodeSubnet="subnet-1", ClientCidr="192.0.2.1/32")
    (rule,) = admitting["NodeSecurityGroup"].properties["SecurityGroupIngress"]
    assert (rule["FromPort"], rule["CidrIp"]) == (9999, "192.0.2.1/32")
    assert node["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    assert node["InstanceType"] == "c6i.large"
    on_arm = evaluated(NodeSubnet="subnet-1", NodeAmi="ami-1", Architecture="arm64")
    assert on_arm["Node"].properties["InstanceType"] == "c7g.large"
    statements = [s for s in _managed("NodeRunnerPolicy") if s["Effect"] == "Allow"]
    forwarding = "arn:aws:ssm:us-east-1::document/AWS-StartPortForwardingSession"
    assert allowed(statements, "ssm:StartSession", forwarding)
    assert not allowed(
        statements, "ssm:StartSession", forwarding.replace("AWS-StartPort", "AWS-StartSSH")
    )


def test_a_new_image_of_the_node_does_not_touch_the_machine() -> None:
    """A changed UserData stops a machine, and a changed AMI replaces it, in mid-job or not."""
    other = evaluated(
        NodeSubnet="subnet-1", NodeVpc="vpc-1", NodeAmi="ami-1", NodeImageUri="X@sha256:2"
    )

    assert other["Node"] == _WITH_A_NODE["Node"]
    assert other["NodeImage"].properties["Value"] == "X@sha256:2"


def test_the_bucket_keeps_nothing_that_a_killed_job_leaves() -> None:
    rules = _RESOURCES["Bucket"].properties["LifecycleConfiguration"]["Rules"]
    kept = {r.get("Prefix", ""): r for r in rules}

    assert kept[""]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert kept["punch-streams/"]["ExpirationInDays"] == 1
    assert kept["sls-scripts/"]["ExpirationInDays"] == 7


def test_what_holds_data_outlives_the_stack_but_not_a_failed_creation() -> None:
    policies = {name: r.policy for name, r in _RESOURCES.items()}
    assert policies["Bucket"] == policies["Rendezvous"] == "RetainExceptOnCreate"
    assert policies["Function"] == "Delete"


def test_no_tagged_image_expires_and_lambda_may_pull() -> None:
    text = read_template(template("registry"))
    given = {k: str(p["Default"]) for k, p in text["Parameters"].items()}
    made = Evaluation(text, given, "punch-registry").resources()

    assert {r.physical for r in made.values()} == {"punch-lambda", "punch-node"}
    for repository in made.values():
        policy = json.loads(repository.properties["LifecyclePolicy"]["LifecyclePolicyText"])
        assert [r["selection"]["tagStatus"] for r in policy["rules"]] == ["untagged"]
    (statement,) = made["LambdaRepository"].properties["RepositoryPolicyText"]["Statement"]
    assert statement["Principal"] == {"Service": "lambda.amazonaws.com"}
    assert set(statement["Action"]) == {"ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}


#: Stand for the machine's programs; `docker` knows which image runs, and what its processes are.
_PROGRAMS = {
    "aws": """case "$*" in
*get-parameter*) cat wanted ;;
*get-login-password*) echo secret ;;
*get-secret-value*) echo token ;;
esac""",
    "docker": """echo "docker $*" >>log
case $1 in
inspect) [ -s running ] && cat running ;;
login) cat >/dev/null ;;
top) cat processes ;;
rm) : >running ;;
run) case $2 in --detach) cat wanted >running ;; *) echo seccomp ;; esac ;;
esac""",
    "install": "cat >token",
}


def test_the_node_changes_over_when_no_script_runs(tmp_path: Path) -> None:
    """The script of its UserData that each minute makes the machine run what it should."""
    data = _WITH_A_NODE["Node"].properties["UserData"]
    subprocess.run(["bash", "-n"], input=data, text=True, check=True)
    script = data.split("<<'END'\n")[1].split("\nEND\n")[0]
    script = script.replace("/etc/punch-seccomp.json", "seccomp.json")
    for name, text in _PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    wanted, running, processes, log = (
        tmp_path / name for name in ("wanted", "running", "processes", "log")
    )
    running.touch()
    processes.write_text("PID COMMAND\n7 punch\n")

    def minute() -> list[str]:
        log.write_text("")
        path = f"{tmp_path}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return [line.split()[1] for line in log.read_text().splitlines()]

    wanted.write_text("host/punch-node@sha256:1\n")
    assert minute() == ["inspect", "login", "pull", "run", "run", "image"]
    assert running.read_text() == wanted.read_text()
    assert (tmp_path / "token").read_text() == "token\n"
    assert minute() == ["inspect"]  # nothing to do

    wanted.write_text("host/punch-node@sha256:2\n")
    processes.write_text("PID COMMAND\n7 punch\n8 bash\n")
    assert "rm" not in minute()  # a script runs
    assert running.read_text() == "host/punch-node@sha256:1\n"
    processes.write_text("PID COMMAND\n7 punch\n")
    assert "rm" in minute()
    assert running.read_text() == wanted.read_text()
