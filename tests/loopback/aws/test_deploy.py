"""The CloudFormation template, applied to the local AWS by the code that applies it to AWS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
