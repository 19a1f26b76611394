"""`punch deploy` and `punch destroy` on the local AWS, with a strict CloudFormation."""

from __future__ import annotations

import base64
import gc
import hashlib
import io
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

from punchlib.aws.deploy import Declined, Wish, deploy, environment, template
from punchlib.aws.destroy import destroy
from punchlib.aws.stacks import Stack
from punchlib.config import Config
from punchlib.errors import PunchError, UsageError
from tests.loopback.aws.conftest import Person
from tests.support.strict_stacks import Cloud


def go(wish: Wish, person: Person) -> dict[str, str]:
    return deploy(wish, person.desk, Config.from_env())


def gone(ask: Any, **request: str | None) -> bool:
    try:
        ask(**request)
    except ClientError:
        return True
    return False


def make_bucket(strict: Cloud, wish: Wish, rules: list[dict[str, Any]] | None = None) -> Any:
    s3 = strict.ministack.client("s3")
    s3.create_bucket(Bucket=wish.bucket)
    if rules:
        s3.put_bucket_lifecycle_configuration(
            Bucket=wish.bucket, LifecycleConfiguration={"Rules": rules}
        )
    return s3


def make_table(strict: Cloud, name: str | None, key: str = "key") -> Any:
    database = strict.ministack.client("dynamodb")
    database.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
        KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return database


def zipped() -> bytes:
    """The same bytes each time."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        text = "def lambda_handler(event, context): return 1\n"
        archive.writestr(zipfile.ZipInfo("lambda_function.py"), text)
    return out.getvalue()


def make_function(strict: Cloud, wish: Wish) -> dict[str, Any]:
    """The guide's: a zip, python3.9, with a log group that Lambda made by itself."""
    strict.ministack.client("logs").create_log_group(logGroupName=f"/aws/lambda/{wish.function}")
    return dict(
        strict.ministack.client("lambda").create_function(
            FunctionName=wish.function,
            Runtime="python3.9",
            Role="arn:aws:iam::000000000000:role/theirs",
            Handler="lambda_function.lambda_handler",
            Code={"ZipFile": zipped()},
            MemorySize=1769,
            Timeout=900,
            EphemeralStorage={"Size": 10240},
            Environment={"Variables": {"AWS_BUCKET": "theirs"}},
        )
    )


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


def test_what_the_guides_user_has_is_adopted(strict: Cloud, wish: Wish, person: Person) -> None:
    theirs = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "old/"}}
    s3 = make_bucket(strict, wish, [theirs | {"Expiration": {"Days": 30}}])
    database = make_table(strict, wish.table)
    strict.ministack.client("logs").create_log_group(logGroupName=f"/aws/lambda/{wish.function}")

    go(wish, person)
    go(wish, Person())

    rules = s3.get_bucket_lifecycle_configuration(Bucket=wish.bucket)["Rules"]
    assert [r["ID"] for r in rules] == ["theirs", "punch-parts", "punch-scripts", "punch-streams"]
    assert rules[0]["Expiration"] == {"Days": 30}
    ttl = database.describe_time_to_live(TableName=wish.table)["TimeToLiveDescription"]
    assert (ttl["TimeToLiveStatus"], ttl["AttributeName"]) == ("ENABLED", "expires_at")
    held = Stack(wish.stack, Config.from_env()).resources()
    assert not {"Bucket", "BucketPolicy", "Rendezvous", "Log"} & held.keys()


def test_the_adopted_bucket_has_the_rules_of_a_new_one() -> None:
    from punchlib.aws.account import RULES
    from tests.support.strict_stacks import read_template

    new = read_template(template("punch"))["Resources"]["Bucket"]["Properties"]
    told = {}
    for rule in new["LifecycleConfiguration"]["Rules"]:
        days = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")
        told[rule.get("Prefix", "")] = days or rule["ExpirationInDays"]
    assert told == {
        prefix: next(iter(next(iter(what.values())).values())) for _, prefix, what in RULES
    }


@pytest.mark.usefixtures("in_tmp")
def test_a_function_goes_only_with_consent_and_comes_back(
    strict: Cloud, wish: Wish, person: Person
) -> None:
    before = make_function(strict, wish)
    functions = strict.ministack.client("lambda")
    with pytest.raises(UsageError, match=r"python3\.9.* not ours") as refusal:
        go(wish, person)
    assert "--replace-function" in refusal.value.next_step and person.asked == 0

    strict.fail["FunctionRole"] = "no roles today"
    with pytest.raises(PunchError, match="no roles today") as failure:
        go(replace(wish, replace_function=True), person)
    assert "comes back by punch-saved/" in failure.value.next_step
    go(wish, person)
    assert functions.get_function(FunctionName=wish.function)["Configuration"]["PackageType"] == (
        "Image"
    )

    (folder,) = Path("punch-saved").iterdir()
    code = (folder / "code.zip").read_bytes()
    assert code == zipped()
    assert oct(folder.stat().st_mode & 0o777) == "0o700"
    destroy(wish.stack, Person().desk, Config.from_env())
    # What restore.sh says, said by boto3: the command line is not installed here.
    assert subprocess.run(["sh", "-n", folder / "restore.sh"], check=True).returncode == 0
    assert "fileb://code.zip" in (folder / "restore.sh").read_text()
    request = json.loads((folder / "function.json").read_text())
    back = functions.create_function(**request, Code={"ZipFile": code})
    for name in ("Runtime", "Handler", "Role", "MemorySize", "Timeout", "EphemeralStorage",
                 "Environment", "CodeSha256", "PackageType"):  # fmt: skip
        assert back[name] == before[name], name
    functions.delete_function(FunctionName=wish.function)


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("in_tmp")
def test_code_that_does_not_come_whole_stops_before_anything_is_deleted(
    strict: Cloud, wish: Wish, person: Person
) -> None:
    from punchlib.aws.account import Account

    make_function(strict, wish)
    functions = strict.ministack.client("lambda")
    found = functions.get_function(FunctionName=wish.function)
    found["Configuration"]["CodeSha256"] = base64.b64encode(hashlib.sha256(b"").digest()).decode()
    with pytest.raises(PunchError, match="did not come whole"):
        Account(Config.from_env()).save_function(found, Path("saved"))
    functions.delete_function(FunctionName=wish.function)


def test_a_table_that_is_no_rendezvous_is_refused(
    strict: Cloud, wish: Wish, person: Person
) -> None:
    make_table(strict, wish.table, key="id")
    with pytest.raises(UsageError, match="is no rendezvous"):
        go(wish, person)


def test_all_that_is_missing_is_said_at_once_and_nothing_is_made(
    strict: Cloud, wish: Wish, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_table(strict, wish.table, key="id")
    wish = replace(
        wish,
        image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/punch-lambda@sha256:00",
        parameters={"ReservedConcurrency": "950"},
    )
    with pytest.raises(PunchError) as refusal:
        go(wish, person)
    said = str(refusal.value)
    assert "no rendezvous" in said and "is in eu-west-1, and this deployment in us-east-1" in said
    assert "leaves 50 of this account's 1000 workers" in said
    assert said.count("next:") == 3 and refusal.value.exit_code == 2
    assert "CreateChangeSet" not in strict.calls


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
