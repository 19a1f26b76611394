"""What is in the account already, under the names that a deployment wants.

The bucket and the table of an earlier set-up are adopted: what they lack is added, what they have
stays. A function cannot be: another kind of package cannot be put into it. So it is saved with the
way back, and then deleted, which needs the owner's word.
"""

from __future__ import annotations

import base64
import hashlib
import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from punchlib.aws import errors
from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.errors import PunchError, UsageError

#: The lifecycle rules of punch.yaml's bucket; our names, so that adopting twice adds them once.
RULES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("punch-parts", "", {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}),
    ("punch-scripts", "sls-scripts/", {"Expiration": {"Days": 7}}),
    ("punch-streams", "punch-streams/", {"Expiration": {"Days": 1}}),
)
TTL = "expires_at"
#: Days for which an adopted log group keeps its lines where it kept them for ever.
LOG_DAYS = 14
#: What `create-function` takes of what `get-function` gives.
_FUNCTION_FIELDS = (
    "FunctionName", "Runtime", "Role", "Handler", "Description", "Timeout", "MemorySize",
    "PackageType", "Architectures", "EphemeralStorage",
)  # fmt: skip


@dataclass
class Names:
    """What a deployment calls its things."""

    bucket: str
    table: str
    function: str

    @property
    def log(self) -> str:
        return f"/aws/lambda/{self.function}"


@dataclass
class Found:
    """What of it is there and belongs to no stack of ours.

    Attributes:
        function: what `get-function` says, where there is one of that name.
        parameters: the template's Create… parameters.
        adopted: a line for people for each thing that is adopted.
    """

    function: dict[str, Any] | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    adopted: list[str] = field(default_factory=list)
    adoptions: list[Callable[[], None]] = field(default_factory=list)


class Account:
    """An account in a region."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def id(self) -> str:
        """Its number.

        Raises:
            PunchError: there are no credentials, or AWS does not know them.
        """
        with translated("AWS does not know who you are"):
            return str(client("sts", self._config).get_caller_identity()["Account"])

    def concurrency(self) -> tuple[int, int]:
        """Workers at once: of the account, and what no function has reserved of them."""
        with translated("Lambda's limits"):
            limits = client("lambda", self._config).get_account_settings()["AccountLimit"]
        most = int(limits["ConcurrentExecutions"])
        return most, int(limits.get("UnreservedConcurrentExecutions", most))

    def subnet_vpc(self, subnet: str) -> str:
        """The VPC of a subnet."""
        with translated(f"the subnet {subnet}"):
            found = client("ec2", self._config).describe_subnets(SubnetIds=[subnet])["Subnets"]
        return str(found[0]["VpcId"])

    def latest_ami(self, architecture: str) -> str:
        """Today's Amazon Linux 2023."""
        name = f"/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{architecture}"
        with translated("the image of Amazon Linux 2023"):
            found = client("ssm", self._config).get_parameter(Name=name)
        return str(found["Parameter"]["Value"])

    def look(self, names: Names, ours: set[str]) -> Found:
        """Looks for what is there already.

        Args:
            names: what to look for.
            ours: the physical names of what our stack holds.

        Raises:
            PunchError: something is there and cannot be used.
        """
        found = Found()
        for name, create, look in (
            (names.bucket, "CreateBucket", self._look_for_bucket),
            (names.table, "CreateTable", self._look_for_table),
            (names.log, "CreateLog", self._look_for_log),
        ):
            exists = name not in ours and look(name, found)
            found.parameters[create] = "no" if exists else "yes"
        if names.function not in ours:
            found.function = self._get_function(names.function)
        return found

    def _look_for_bucket(self, name: str, found: Found) -> bool:
        from botocore.exceptions import ClientError

        s3 = client("s3", self._config)
        try:
            with translated(f"the bucket {name}"):
                try:
                    answer = s3.head_bucket(Bucket=name)
                except ClientError as error:
                    code = errors.code_of(error)
                    if code in ("404", "NoSuchBucket"):
                        return False
                    if code in ("403", "AccessDenied"):
                        raise UsageError(
                            f"the bucket {name} belongs to somebody else, or you may not use it",
                            next_step="choose another --bucket: all of AWS shares their names",
                        ) from error
                    raise
        except PunchError as error:
            if error.code in ("301", "PermanentRedirect"):
                raise self._elsewhere(name, "another region") from error
            raise
        region = answer.get("BucketRegion") or self._config.region
        if region != self._config.region:
            raise self._elsewhere(name, region)
        found.adopted.append(f"the bucket {name}: our lifecycle rules are added to its own")
        found.adoptions.append(lambda: self._adopt_bucket(name))
        return True

    def _elsewhere(self, bucket: str, region: str) -> UsageError:
        return UsageError(
            f"the bucket {bucket} is in {region}, and this deployment in {self._config.region}",
            next_step="choose another --bucket, or set AWS_REGION to the bucket's",
        )

    def _adopt_bucket(self, name: str) -> None:
        from botocore.exceptions import ClientError

        s3 = client("s3", self._config)
        with translated(f"the lifecycle rules of {name}"):
            try:
                theirs = s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
            except ClientError as error:
                if not errors.is_code(error, "NoSuchLifecycleConfiguration"):
                    raise
                theirs = []
            # The old form (Prefix) and the new one (Filter) cannot stand in one configuration.
            old = any("Filter" not in rule for rule in theirs)
            ours = [
                {"ID": rule, "Status": "Enabled", **what}
                | ({"Prefix": prefix} if old else {"Filter": {"Prefix": prefix}})
                for rule, prefix, what in RULES
            ]
            mine = {rule for rule, _, _ in RULES}
            kept = [rule for rule in theirs if rule.get("ID") not in mine]
            s3.put_bucket_lifecycle_configuration(
                Bucket=name, LifecycleConfiguration={"Rules": [*kept, *ours]}
            )

    def _look_for_table(self, name: str, found: Found) -> bool:
        from botocore.exceptions import ClientError

        database = client("dynamodb", self._config)
        with translated(f"the table {name}"):
            try:
                table = database.describe_table(TableName=name)["Table"]
            except ClientError as error:
                if errors.is_code(error, "ResourceNotFoundException"):
                    return False
                raise
            keys = [(k["AttributeName"], k["KeyType"]) for k in table["KeySchema"]]
            types = {a["AttributeName"]: a["AttributeType"] for a in table["AttributeDefinitions"]}
            if keys != [("key", "HASH")] or types["key"] != "S":
                raise UsageError(
                    f"the table {name} is no rendezvous: its key is {keys}, not `key`, a string",
                    next_step="choose another --table",
                )
            ttl = database.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        if ttl.get("TimeToLiveStatus") in ("ENABLED", "ENABLING"):
            if ttl.get("AttributeName") != TTL:
                raise UsageError(
                    f"the table {name} expires its items by {ttl.get('AttributeName')}, not {TTL}",
                    next_step="choose another --table, or switch its time to live off",
                )
            found.adopted.append(f"the table {name}")
            return True
        found.adopted.append(f"the table {name}: its items will expire (TTL on {TTL})")
        found.adoptions.append(lambda: self._adopt_table(name))
        return True

    def _adopt_table(self, name: str) -> None:
        with translated(f"the table {name}"):
            client("dynamodb", self._config).update_time_to_live(
                TableName=name,
                TimeToLiveSpecification={"Enabled": True, "AttributeName": TTL},
            )

    def _look_for_log(self, name: str, found: Found) -> bool:
        logs = client("logs", self._config)
        with translated(f"the log group {name}"):
            groups = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
        group = next((g for g in groups if g["logGroupName"] == name), None)
        if group is None:
            return False
        if "retentionInDays" in group:
            found.adopted.append(f"the log group {name}")
        else:
            found.adopted.append(f"the log group {name}: its lines will go after {LOG_DAYS} days")
            found.adoptions.append(lambda: self._adopt_log(name))
        return True

    def _adopt_log(self, name: str) -> None:
        with translated(f"the log group {name}"):
            client("logs", self._config).put_retention_policy(
                logGroupName=name, retentionInDays=LOG_DAYS
            )

    def _get_function(self, name: str) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        with translated(f"the function {name}"):
            try:
                return dict(client("lambda", self._config).get_function(FunctionName=name))
            except ClientError as error:
                if errors.is_code(error, "ResourceNotFoundException"):
                    return None
                raise

    def save_function(self, function: dict[str, Any], folder: Path) -> Path:
        """Writes a function's code, its settings and the way back into a new folder.

        Returns:
            The script that brings it back.

        Raises:
            PunchError: its code cannot be had whole; nothing has been deleted.
        """
        settings, code = function["Configuration"], function["Code"]
        request = {name: settings[name] for name in _FUNCTION_FIELDS if settings.get(name)}
        request["Environment"] = {"Variables": settings.get("Environment", {}).get("Variables", {})}
        request["Layers"] = [layer["Arn"] for layer in settings.get("Layers", [])]
        if settings.get("TracingConfig"):
            request["TracingConfig"] = settings["TracingConfig"]
        if network := settings.get("VpcConfig", {}).get("SubnetIds"):
            request["VpcConfig"] = {
                "SubnetIds": network,
                "SecurityGroupIds": settings["VpcConfig"]["SecurityGroupIds"],
            }
        # Its environment may hold secrets.
        folder.mkdir(mode=0o700, parents=True)
        from_zip = ""
        if settings.get("PackageType") == "Image":
            del request["Layers"]
            request["Code"] = {"ImageUri": code["ImageUri"]}
        else:
            from_zip = " --zip-file fileb://code.zip"
            (folder / "code.zip").write_bytes(_fetch_code(settings, code["Location"]))
        (folder / "function.json").write_text(json.dumps(request, indent=2) + "\n")
        name, region = settings["FunctionName"], self._config.region
        back = folder / "restore.sh"
        back.write_text(
            "#!/bin/sh\n# Puts the function back that was there before `punch deploy`.\n"
            'set -eu\ncd "$(dirname "$0")"\n'
            f"aws lambda delete-function --region {region} --function-name {name} || true\n"
            f"aws lambda create-function --region {region}"
            f" --cli-input-json file://function.json{from_zip}\n"
        )
        back.chmod(0o700)
        return back

    def delete_function(self, name: str) -> None:
        """Deletes a function that no stack of ours made."""
        with translated(f"the function {name}"):
            client("lambda", self._config).delete_function(FunctionName=name)


def _fetch_code(settings: dict[str, Any], location: str) -> bytes:
    name = settings["FunctionName"]
    try:
        with urllib.request.urlopen(location, timeout=60) as answer:
            code = bytes(answer.read())
    except OSError as error:
        raise PunchError(f"the code of the function {name} cannot be fetched: {error}") from error
    if base64.b64encode(hashlib.sha256(code).digest()).decode() != settings["CodeSha256"]:
        raise PunchError(
            f"the code of the function {name} did not come whole", next_step="deploy again"
        )
    return code


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns botocore's errors into ours, with the permissions as the next step."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (ClientError, BotoCoreError) as error:
        ours = errors.translate(error, what, PunchError)
        assert ours is not None
        if ours.code in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"):
            ours.next_step = "check the permissions listed in docs/deploy-aws.md"
        raise ours from error
