"""The CloudFormation template, applied to the local AWS by the code that applies it to AWS."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from punchlib.aws.deploy import deploy, main
from punchlib.errors import PunchError, UsageError
from tests.support.ministack import MiniStack

ROOT = Path(__file__).parents[3]
TEMPLATE = ROOT / "deploy" / "punch.yaml"


@pytest.fixture
def cloud(ministack: MiniStack, monkeypatch: pytest.MonkeyPatch) -> MiniStack:
    for name, value in ministack.env.items():
        monkeypatch.setenv(name, value)
    return ministack


def apply(stack: str, **parameters: str) -> dict[str, str]:
    given = {"ImageUri": "punch-lambda:local", "BucketName": f"{stack}-bucket"}
    given |= {"FunctionName": f"{stack}-f", "TableName": f"{stack}-rdv", **parameters}
    return deploy(given, stack=stack, template=TEMPLATE)


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
    assert function["Environment"]["Variables"]["AWS_BUCKET"] == "a-bucket"
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
    deploy({"ImageUri": "punch-lambda:other"}, stack="c", template=TEMPLATE)

    function = configuration(cloud, "c-f")
    assert function["Timeout"] == 300
    image = cloud.client("lambda").get_function(FunctionName="c-f")["Code"]["ImageUri"]
    assert image == "punch-lambda:other"


def test_a_parameter_that_is_not_there_is_refused(cloud: MiniStack) -> None:
    with pytest.raises(PunchError):
        deploy({"ImageUri": "x"}, stack="d", template=TEMPLATE)


def test_a_missing_template_is_named(cloud: MiniStack, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml"):
        deploy({}, template=tmp_path / "none.yaml")


def test_an_api_that_is_not_there_is_one_message(
    cloud: MiniStack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("punchlib.aws.clients.MAX_ATTEMPTS", 1)

    code = main(["--image", "x", "--bucket", "y", "--template", str(TEMPLATE)])

    assert code == 1
    error = capsys.readouterr().err
    assert "127.0.0.1:1" in error and "next:" in error and "Traceback" not in error


def test_the_registry_template_makes_both_repositories(cloud: MiniStack) -> None:
    deploy({}, stack="r", template=ROOT / "deploy" / "registry.yaml")

    found = cloud.client("ecr").describe_repositories()["repositories"]
    assert {"punch-node", "punch-lambda"} <= {r["repositoryName"] for r in found}


Statement = dict[str, Any]

#: What the intrinsic functions of the policies stand for, with the parameters of this test.
_FACTS = {
    "BucketName": "BUCKET",
    "AWS::Partition": "aws",
    "Rendezvous.Arn": "TABLE",
    "Function.Arn": "FUNCTION",
    "Log.Arn": "LOG",
}


class _Template(yaml.SafeLoader):
    """CloudFormation's YAML, with the intrinsic functions that policies use resolved."""


def _resolve(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> object:
    if not isinstance(node, yaml.ScalarNode):
        return None  # !If and its kin: no policy of ours has one
    if suffix == "Sub":
        return re.sub(r"\$\{([^}]+)\}", lambda m: _FACTS.get(m[1], m[0]), node.value)
    return _FACTS.get(node.value, node.value)


yaml.add_multi_constructor("!", _resolve, Loader=_Template)
_RESOURCES: dict[str, Any] = yaml.load(TEMPLATE.read_text(), Loader=_Template)["Resources"]


def _managed(name: str) -> list[Statement]:
    return list(_RESOURCES[name]["Properties"]["PolicyDocument"]["Statement"])


def _of_the_function() -> list[Statement]:
    """What the function's role may: the policy that all nodes share, and its own."""
    role = _RESOURCES["FunctionRole"]["Properties"]
    assert role["ManagedPolicyArns"] == ["DataPolicy"]
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
        ("dynamodb:UpdateItem", "TABLE", True, False),
        ("dynamodb:BatchGetItem", "TABLE", True, False),
        ("dynamodb:DeleteTable", "TABLE", False, False),
        ("dynamodb:Scan", "TABLE", False, False),
        ("lambda:InvokeFunction", "FUNCTION", False, True),
        ("lambda:UpdateFunctionCode", "FUNCTION", False, False),
        ("logs:PutLogEvents", "LOG", True, False),
        ("logs:PutLogEvents", "ANOTHER-LOG", False, False),
        ("iam:PassRole", "FUNCTION", False, False),
    ],
)
def test_least_privilege(action: str, where: str, worker: bool, runner: bool) -> None:
    resource = f"arn:aws:{where}" if where.startswith("s3:") else where

    assert allowed(_of_the_function(), action, resource) is worker
    assert allowed(_managed("RunnerPolicy"), action, resource) is runner


def test_the_bucket_is_reached_by_tls_only() -> None:
    (statement,) = _RESOURCES["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]

    assert statement["Effect"] == "Deny" and statement["Principal"] == "*"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert statement["Resource"] == ["arn:aws:s3:::BUCKET", "arn:aws:s3:::BUCKET/*"]


def test_no_role_for_a_node_that_is_not_asked_for(cloud: MiniStack) -> None:
    outputs = apply("nn")

    assert "NodeProfile" not in outputs
    resources = cloud.client("cloudformation").describe_stack_resources(StackName="nn")
    kinds = [r["LogicalResourceId"] for r in resources["StackResources"]]
    assert "NodeRole" not in kinds and "FunctionRole" in kinds


def test_the_bucket_keeps_nothing_that_a_killed_job_leaves() -> None:
    rules = _RESOURCES["Bucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    kept = {r.get("Prefix", ""): r for r in rules}

    assert kept[""]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert kept["punch-streams/"]["ExpirationInDays"] == 1
    assert kept["sls-scripts/"]["ExpirationInDays"] == 7
