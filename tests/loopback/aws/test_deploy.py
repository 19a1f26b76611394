"""`punch deploy` and `punch destroy` on the local AWS, with a strict CloudFormation."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import uuid
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from punchlib.aws.deploy import Declined, Wish, environment
from punchlib.aws.destroy import destroy
from punchlib.aws.stacks import Stack
from punchlib.config import Config
from punchlib.errors import PunchError
from tests.loopback.aws.conftest import Person, go
from tests.support.strict_stacks import Cloud


def gone(ask: Any, **request: str | None) -> bool:
    try:
        ask(**request)
    except ClientError:
        return True
    return False


def test_deploy_again_and_destroy(strict: Cloud, wish: Wish, person: Person) -> None:
    outputs = go(wish, person)
    assert person.asked == 1 and "add      Function (AWS::Lambda::Function)" in person.read
    assert "Node (" not in person.read
    assert outputs["Bucket"] == wish.bucket
    stack = Stack(wish.stack, Config.from_env())
    assert environment(stack, "us-east-1") == {
        "AWS_BUCKET": wish.bucket,
        "AWS_REGION": "us-east-1",
        "PUNCH_TABLE": wish.table,
        "PUNCH_FUNCTION": wish.function,
    }

    again = Person()
    # What was given once is kept: names, too.
    assert go(Wish(image=wish.image, stack=wish.stack), again) == outputs
    assert again.asked == 0 and "up to date" in again.read

    leaving = Person()
    s3 = strict.ministack.client("s3")
    kept = destroy(wish.stack, leaving.desk, Config.from_env())
    assert leaving.asked == 1 and f"remove  the stack {wish.stack} (" in leaving.read
    assert len(kept) == 2 and str(wish.bucket) in kept[0] and str(wish.table) in kept[1]
    s3.head_bucket(Bucket=wish.bucket)
    functions, logs = strict.ministack.client("lambda"), strict.ministack.client("logs")
    assert gone(functions.get_function, FunctionName=wish.function)
    assert gone(logs.list_tags_log_group, logGroupName=f"/aws/lambda/{wish.function}")

    # And back: bucket and table are adopted.
    back = Person()
    go(wish, back)
    assert f"adopt   the bucket {wish.bucket}" in back.read
    s3.put_object(Bucket=wish.bucket, Key="data", Body=b"x")
    s3.create_multipart_upload(Bucket=wish.bucket, Key="unfinished")
    assert destroy(wish.stack, Person().desk, Config.from_env(), purge=True) == []
    assert gone(s3.head_bucket, Bucket=wish.bucket)
    assert gone(strict.ministack.client("dynamodb").describe_table, TableName=wish.table)
    nothing = Person()
    destroy(wish.stack, nothing.desk, Config.from_env())
    assert nothing.asked == 0 and "nothing of" in nothing.read


def test_a_no_changes_nothing(strict: Cloud, wish: Wish) -> None:
    no = Person(answer=False)
    with pytest.raises(Declined):
        go(wish, no)
    assert not strict.change_sets
    assert gone(strict.ministack.client("s3").head_bucket, Bucket=wish.bucket)
    go(wish, Person())
    with pytest.raises(Declined):
        destroy(wish.stack, no.desk, Config.from_env())
    assert Stack(wish.stack, Config.from_env()).status() == "CREATE_COMPLETE"


@pytest.mark.parametrize("failing", ["BucketPolicy", "FunctionRole", "Function"])
def test_a_failed_first_deployment_can_be_repeated(
    strict: Cloud, wish: Wish, person: Person, failing: str
) -> None:
    strict.fail[failing] = "not this time"
    with pytest.raises(PunchError, match=f"{failing} .*not this time"):
        go(wish, person)

    assert go(wish, person)["Bucket"] == wish.bucket


# Docker's library leaves the socket to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_its_image_here_a_deployment_keeps_the_one_it_has(
    strict: Cloud, wish: Wish, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = go(wish, person)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    again = Person()
    assert go(Wish(stack=wish.stack, parameters={"Timeout": "60"}), again) == outputs
    assert "the one that is deployed stays" in again.read
    parameters = Stack(wish.stack, Config.from_env()).parameters()
    assert (parameters["ImageUri"], parameters["Timeout"]) == (wish.image, "60")
    gc.collect()


# The same.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_docker_is_one_message(
    strict: Cloud, wish: Wish, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    with pytest.raises(PunchError, match="Docker does not answer"):
        go(replace(wish, image=None), person)
    gc.collect()


def test_no_credentials_is_one_message(
    strict: Cloud, wish: Wish, person: Person, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in list(os.environ):
        if name.startswith(("AWS_ACCESS", "AWS_SECRET")):
            monkeypatch.delenv(name)
    with pytest.raises(PunchError, match="no AWS credentials"):
        go(wish, person)


def test_what_a_failed_registry_leaves_is_repeated(strict: Cloud, wish: Wish) -> None:
    """Repositories that are there without our stack are used, as an earlier `destroy` left them."""
    ecr = strict.ministack.client("ecr")
    ecr.create_repository(repositoryName=f"{wish.stack}-lambda")
    from punchlib.aws.deploy import Registry

    registry = Registry(wish, Config.from_env(), Person().desk)
    proposal = registry.propose(wish.stack)
    assert proposal is not None
    assert [c.resource for c in proposal.changes] == ["NodeRepository"]
    registry.execute(proposal)
    assert registry.propose(wish.stack) is None
    registry.stack.delete()
    ecr.delete_repository(repositoryName=f"{wish.stack}-lambda")


def test_an_installed_package_has_all_that_a_deployment_needs(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    source = tmp_path / "source"
    shutil.copytree(
        root / "punchlib", source / "punchlib", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(root / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    look = f"""
import sys
sys.path.insert(0, {str(installed)!r})
import punchlib
from importlib.resources import as_file, files
from punchlib.aws.deploy import template
from punchlib.jobs import manifest
assert punchlib.__file__.startswith({str(installed)!r}), punchlib.__file__
assert "AWS::Lambda::Function" in template("punch") and template("registry")
with as_file(files("punchlib.jobs").joinpath("smoke", "sort-width2")) as folder:
    print(sorted(n.id for n in manifest.load(folder).nodes))
"""
    done = subprocess.run([sys.executable, "-c", look], cwd=tmp_path, capture_output=True)
    assert done.stdout.decode().strip() == "['merger', 'splitter', 'worker1', 'worker2']", done


def test_a_node_is_pinned_to_the_machine_image_of_its_first_deployment(
    strict: Cloud, wish: Wish, person: Person
) -> None:
    ec2, ssm = strict.ministack.client("ec2"), strict.ministack.client("ssm")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.0.0/24")["Subnet"]["SubnetId"]

    def publish(architecture: str, ami: str) -> None:
        name = f"/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{architecture}"
        ssm.put_parameter(Name=name, Value=ami, Type="String", Overwrite=True)

    publish("x86_64", "ami-first")
    image = "000000000000.dkr.ecr.us-east-1.amazonaws.com/punch-node@sha256:1"
    wish = replace(wish, node_subnet=subnet, node_image=image)
    outputs = go(wish, person)
    stack = Stack(wish.stack, Config.from_env())
    first = stack.parameters()
    assert (first["NodeAmi"], first["NodeVpc"]) == ("ami-first", vpc)
    assert outputs["NodeId"] and "add      Node (AWS::EC2::Instance)" in person.read

    publish("x86_64", "ami-second")
    again = Person()
    go(replace(wish, node_subnet=None, node_image=image.replace("sha256:1", "sha256:2")), again)
    assert stack.parameters()["NodeAmi"] == "ami-first"
    # The machine is not touched: it looks for its image by itself.
    assert "NodeImage (AWS::SSM::Parameter)" in again.read
    assert "Node (AWS::EC2::Instance)" not in again.read

    publish("arm64", "ami-arm")
    go(replace(wish, parameters={"Architecture": "arm64"}), Person())
    assert stack.parameters()["NodeAmi"] == "ami-arm"
    with pytest.raises(PunchError, match="subnet-nowhere"):
        go(replace(wish, node_subnet="subnet-nowhere"), Person())
    stack.delete()


@pytest.mark.usefixtures("strict")
def test_the_command_line(tmp_path: Path) -> None:
    """As a user calls it; nobody is there to be asked."""
    punch = [str(Path(sys.executable).parent / "punch")]
    stack = f"c{uuid.uuid4().hex[:8]}"
    given = ["--stack", stack, "--image", "punch-lambda:local", "--function", f"{stack}-f"]
    given += ["--table", f"{stack}-t", "--no-smoke-test"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*punch, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=120,
        )

    refused = run("deploy", *given)
    assert refused.returncode == 2 and "say --yes" in refused.stderr
    done = run("deploy", *given, "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "export AWS_BUCKET=punch-000000000000-us-east-1",
        "export AWS_REGION=us-east-1",
        f"export PUNCH_TABLE={stack}-t",
        f"export PUNCH_FUNCTION={stack}-f",
    ]
    told = json.loads(run("deploy", "--stack", stack, "--image", "punch-lambda:local", "--yes",
                          "--no-smoke-test", "--json").stdout)  # fmt: skip
    assert told["environment"]["PUNCH_FUNCTION"] == f"{stack}-f" and told["v"] == 1
    gone = run("destroy", "--stack", stack, "--purge", "--yes")
    assert gone.returncode == 0 and "all of it has gone" in gone.stderr
