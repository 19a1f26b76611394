"""What is there before a deployment: it is adopted, replaced with consent, or refused."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from punchlib.aws.deploy import Wish, template
from punchlib.aws.destroy import destroy
from punchlib.aws.stacks import Stack
from punchlib.config import Config
from punchlib.errors import PunchError, UsageError
from tests.loopback.aws.conftest import Person, go
from tests.support.strict_stacks import Cloud


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
    from tests.support.strict_templates import read_template

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
