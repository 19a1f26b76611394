"""What of AWS a job needs, as this machine's credentials see it.

Nothing is made and nothing stays: a permission to write is asked for by a write that the table must
refuse, and by an object that the next call deletes. A look that is not permitted is no failure:
whoever runs jobs may do less than whoever deploys.
"""

from __future__ import annotations

import http.client
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any

from punchlib.aws import errors
from punchlib.aws.account import TTL, Account
from punchlib.aws.clients import client
from punchlib.aws.errors import CLOCK_TOLERANCE
from punchlib.config import Config
from punchlib.doctor.finding import Finding, Level, fail, looked_at, ok, warn
from punchlib.errors import PunchError
from punchlib.net.s3_route import PREFIX

#: Seconds by which AWS lets a clock be wrong: it refuses the signature beyond.
CLOCK_LIMIT = 300.0
#: New accounts have 10 workers at once; less than a small job.
FEW_WORKERS = 16
#: Seconds: a function of a shorter time-out is none that was made for jobs.
SHORT = 60
#: Where no call may make a person wait for minutes.
_SOON: dict[str, Any] = {
    "connect_timeout": 3,
    "read_timeout": 8,
    "retries": {"mode": "standard", "total_max_attempts": 2},
}
_DEPLOY = 'eval "$(punch deploy)"'
_ALLOW = "nothing, if jobs run; else allow {}, as docs/deploy-aws.md lists"


def examine(config: Config, *, node: bool) -> Iterator[Finding]:
    """Looks at AWS.

    Args:
        config: region, endpoint, names.
        node: this machine runs scripts: what it may not, no job can do without. Whoever only starts
            jobs needs less.
    """
    yield region(config)
    yield looked_at("clock", lambda: clock(config))
    found = looked_at("credentials", lambda: credentials(config))
    yield found
    if found.level is not Level.OK:
        what = "bucket, table, function and concurrency cannot be looked at: see credentials"
        yield warn("AWS", what, "mend the credentials first")
        return
    yield looked_at("bucket", lambda: bucket(config))
    yield looked_at("table", lambda: table(config, node=node))
    if not node:
        yield looked_at("function", lambda: function(config))
        yield looked_at("concurrency", lambda: concurrency(config))


def region(config: Config) -> Finding:
    """Which, and who says so."""
    names = ("AWS_REGION", "AWS_DEFAULT_REGION")
    by = next((n for n in names if os.environ.get(n)), "")
    where = f", at {config.endpoint_url} (AWS_ENDPOINT_URL)" if config.endpoint_url else ""
    if by:
        return ok("region", f"{config.region}, by {by}{where}")
    if config.region != Config.region:
        return ok("region", f"{config.region}, by the profile{where}")
    what = f"{config.region}, for want of any other{where}"
    return warn("region", what, "set AWS_REGION, as `punch deploy` prints it")


def clock(config: Config) -> Finding:
    """Ours against the `Date` (RFC 9110 section 6.6.1) of AWS's answer; to the second."""
    where = config.endpoint_url or f"https://sts.{config.region}.amazonaws.com"
    step = "set this machine's clock (NTP)"
    try:
        url = urllib.parse.urlsplit(where)
        kind = http.client.HTTPConnection if url.scheme == "http" else http.client.HTTPSConnection
        connection = kind(url.hostname or "", url.port, timeout=5.0)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            now = time.time()
        finally:
            connection.close()
        ahead = now - parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (OSError, http.client.HTTPException) as error:
        what = f"cannot be compared: {where} does not answer: {error}"
        return warn("clock", what, "check the network, AWS_REGION and AWS_ENDPOINT_URL")
    except (TypeError, ValueError):
        return warn("clock", f"cannot be compared: {where} does not say the time", step)
    if abs(ahead) <= 2:
        return ok("clock", "as AWS's, to the second")
    what = f"{abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} AWS's"
    if abs(ahead) >= CLOCK_LIMIT:
        return fail("clock", f"{what}: it refuses signatures that are 300 s off", step)
    return warn("clock", what, step) if abs(ahead) >= CLOCK_TOLERANCE else ok("clock", what)


def credentials(config: Config) -> Finding:
    """Who we are to AWS; never more of a key than its name."""
    try:
        who = client("sts", config, **_SOON).get_caller_identity()
    except Exception as error:
        ours = _ours(error, "AWS does not know who you are")
        step = ours.next_step or "check the credentials: `aws sts get-caller-identity`"
        return fail("credentials", ours.message, step)
    return ok("credentials", f"{who.get('Arn') or 'nobody'}, account {who.get('Account') or '?'}")


def bucket(config: Config) -> Finding:
    """Whether it is there, and takes and gives an object of the S3 route."""
    name = config.bucket
    if not name:
        what = "AWS_BUCKET is not set: no scripts, no data, no S3 route"
        return fail("bucket", what, f"export AWS_BUCKET=NAME, or {_DEPLOY}")
    s3, key = None, f"{PREFIX}doctor-{os.urandom(8).hex()}"
    step = f"check AWS_BUCKET and AWS_REGION; {_DEPLOY} makes one"
    doing = "look at it"
    try:
        s3 = client("s3", config, **_SOON)
        region = s3.head_bucket(Bucket=name).get("BucketRegion") or config.region
        doing = f"put an object under {PREFIX}"
        s3.put_object(Bucket=name, Key=key, Body=b"punch doctor")
        doing = "get it back"
        s3.get_object(Bucket=name, Key=key)["Body"].read()
        doing = "delete it"
        s3.delete_object(Bucket=name, Key=key)
    except Exception as error:
        if errors.is_code(error, "404", "NoSuchBucket"):
            return fail("bucket", f"there is no bucket {name}", step)
        ours = _ours(error, f"the bucket {name}: cannot {doing}")
        if ours.code in ("403", "AccessDenied"):
            step = f"allow s3:PutObject, GetObject, DeleteObject on {PREFIX}*; is it yours?"
        return fail("bucket", ours.message, step)
    if region != config.region:
        what = f"{name} is in {region}, and AWS_REGION says {config.region}"
        return fail("bucket", what, f"set AWS_REGION={region}, or use a bucket of {config.region}")
    return ok("bucket", f"{name}: an object went in and out")


def table(config: Config, *, node: bool) -> Finding:
    """Whether the rendezvous is there, has its key and its time to live, and takes records."""
    from botocore.exceptions import ClientError

    name = config.table
    try:
        database = client("dynamodb", config, **_SOON)
        described = database.describe_table(TableName=name)["Table"]
    except Exception as error:
        ours = _ours(error, f"the table {name}")
        if ours.code == "ResourceNotFoundException":
            what, step = f"there is no table {name}", "check PUNCH_TABLE and AWS_REGION"
            if config.endpoint_url:  # an emulation: its nodes may do what on AWS they may not
                return warn("table", f"{what}: the first stream makes it, if it may", step)
            return fail("table", what, f"{step}; {_DEPLOY} makes one")
        return _not_seen("table", ours, "dynamodb:DescribeTable", needed=node)
    keys = [(k["AttributeName"], k["KeyType"]) for k in described["KeySchema"]]
    if keys != [("key", "HASH")]:
        what = f"{name} is no rendezvous: its key is {keys}, not `key`"
        return fail("table", what, "name another in PUNCH_TABLE")
    try:
        # It must refuse: no such item exists. To refuse, it must let us.
        database.update_item(
            TableName=name,
            Key={"key": {"S": f"doctor/{os.urandom(8).hex()}"}},
            UpdateExpression="SET expires_at = :now",
            ConditionExpression="attribute_exists(#key)",
            ExpressionAttributeNames={"#key": "key"},
            ExpressionAttributeValues={":now": {"N": str(int(time.time()))}},
        )
    except ClientError as error:
        if not errors.is_code(error, "ConditionalCheckFailedException"):
            ours = _ours(error, f"the table {name} is there and takes no records of ours")
            return _not_seen("table", ours, "dynamodb:UpdateItem", needed=node)
    try:
        ttl = database.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    except Exception as error:
        # A node may not look, by the policy of `punch deploy`, and need not.
        ours = _ours(error, f"{name} takes records; its time to live")
        if node and "AccessDenied" in ours.code:
            return ok("table", f"{name} takes records")
        return _not_seen("table", ours, "dynamodb:DescribeTimeToLive", needed=False)
    on = ttl.get("TimeToLiveStatus") in ("ENABLED", "ENABLING")
    if not on or ttl.get("AttributeName") != TTL:
        by = f"goes by {ttl.get('AttributeName')}" if on else "is off"
        what = f"{name} takes records, and its time to live {by}: old ones stay for ever"
        step = f"{_DEPLOY} mends it; or switch TTL on, by {TTL}"
        return warn("table", what, step)
    return ok("table", f"{name} takes records, which expire by {TTL}")


def function(config: Config) -> Finding:
    """Whether it is there and can be started; what it runs, a probe tells."""
    name = config.function
    try:
        found = client("lambda", config, **_SOON).get_function(FunctionName=name)
    except Exception as error:
        ours = _ours(error, f"the function {name}")
        if ours.code == "ResourceNotFoundException":
            what = f"there is no function {name} in {config.region}"
            return fail("function", what, f"check PUNCH_FUNCTION and AWS_REGION; or {_DEPLOY}")
        return _not_seen("function", ours, "lambda:GetFunction", needed=False)
    settings, code = found["Configuration"], found.get("Code", {})
    image = code.get("ResolvedImageUri") or code.get("ImageUri")
    runs = image or f"a zip for {settings.get('Runtime') or 'an unknown runtime'}"
    what = f"{name}: {settings.get('MemorySize', '?')} MB, {settings.get('Timeout', '?')} s, {runs}"
    state, update = settings.get("State", "Active"), settings.get("LastUpdateStatus", "Successful")
    if "Pending" in state or update == "InProgress":
        return warn("function", f"{what}; it is being made or changed", "wait a minute")
    if state == "Failed" or update == "Failed":
        reason = (
            settings.get("StateReason") or settings.get("LastUpdateStatusReason") or "no reason"
        )
        return fail("function", f"{what}; {state}, update {update}: {reason}", _DEPLOY)
    if (reserved := found.get("Concurrency", {}).get("ReservedConcurrentExecutions")) == 0:
        what += "; its reserved concurrency is 0: it never runs"
        return fail("function", what, "aws lambda delete-function-concurrency, or reserve more")
    what += f"; {reserved} workers reserved" if reserved is not None else ""
    if int(settings.get("Timeout") or SHORT) < SHORT:
        what += "; it is killed before most jobs end"
        return warn("function", what, "punch deploy gives it 900 s; or raise its time-out")
    if settings.get("VpcConfig", {}).get("SubnetIds"):
        what += "; in a VPC, behind its NAT Gateway: few connections are direct"
        return warn("function", what, "take it out of the VPC, unless it needs something there")
    return ok("function", what)


def concurrency(config: Config) -> Finding:
    """How many workers may run at once, in the account."""
    try:
        most, free = Account(config).concurrency()
    except PunchError as ours:
        return _not_seen("concurrency", ours, "lambda:GetAccountSettings", needed=False)
    what = f"{most:,} workers at once in this account, {free:,} not reserved"
    if free < FEW_WORKERS:
        step = "Service Quotas, Lambda, concurrent executions, raises it"
        return warn("concurrency", f"{what}: a job with more Lambda nodes cannot run", step)
    return ok("concurrency", what)


def _ours(error: Exception, what: str) -> PunchError:
    """Any failure of a look, in one line; a bug in a library ends no command either."""
    if isinstance(error, PunchError):
        return error
    ours: PunchError | None = errors.translate(error, what, PunchError)
    return ours or PunchError(f"{what}: {type(error).__name__}: {error}")


def _not_seen(name: str, error: PunchError, action: str, *, needed: bool) -> Finding:
    """A look that failed; a failure of the thing itself where it cannot be done without."""
    level: Callable[[str, str, str], Finding] = fail if needed else warn
    if "AccessDenied" in error.code or error.code in ("403", "UnauthorizedOperation"):
        return level(name, error.message, _ALLOW.format(action))
    step = error.next_step or "check the network, AWS_REGION and AWS_ENDPOINT_URL"
    return level(name, error.message, step)
