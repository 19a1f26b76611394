"""What `punch deploy` does: checks, images, stack; each step only when the one before went well.

Nothing is made before everything that can be known has been looked at. Every step can be repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from punchlib.aws import images
from punchlib.aws.account import Account, Found, Names
from punchlib.aws.clients import client
from punchlib.aws.stacks import ChangeSet, Stack
from punchlib.config import Config
from punchlib.errors import PunchError, UsageError

#: Where a function that was replaced is kept, in the folder that `punch deploy` runs in.
SAVED = Path("punch-saved")
#: The images that `make images` leaves with Docker, by the parameter that names each on AWS.
LOCAL_IMAGES = {"ImageUri": "punch-lambda:local", "NodeImageUri": "punch-node:local"}
#: What follows the stack's name in the name of each one's repository.
REPOSITORIES = {"ImageUri": "lambda", "NodeImageUri": "node"}
#: Lambda wants so many workers to stay for functions without a reservation.
UNRESERVED = 100


@dataclass(frozen=True)
class Wish:
    """What is to be deployed.

    Attributes:
        image: the Lambda image, by digest; None pushes our local one.
        bucket: None takes the one that was given before, else punch-ACCOUNT-REGION.
        function: None takes the one that was given before, else `lambda`.
        table: the same, else `rdv`.
        stack: the stack's name, and how the repositories' names begin.
        node_image: the node image, likewise; needed only with a subnet.
        node_subnet: a public subnet; an EC2 node is started in it.
        replace_function: a function that is there and not ours may go.
        registry: where images are pushed instead of ECR's own address (local emulations).
        parameters: of the template, for everything else.
    """

    image: str | None = None
    bucket: str | None = None
    function: str | None = None
    table: str | None = None
    stack: str = "punch"
    node_image: str | None = None
    node_subnet: str | None = None
    replace_function: bool = False
    registry: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Desk:
    """How a deployment speaks with whoever wants it.

    Attributes:
        say: one line about what is being done.
        ask: shows lines, and returns whether to go on.
    """

    say: Callable[[str], None]
    ask: Callable[[list[str]], bool]


class Declined(PunchError):
    """Whoever was asked said no."""


@dataclass
class Plan:
    """What the checks before the start found out."""

    account: str
    names: Names
    found: Found
    parameters: dict[str, str]
    local_images: dict[str, str]
    notes: list[str]


def template(name: str) -> str:
    """A template of ours, from wherever the package is installed."""
    return files("punchlib.aws").joinpath("templates", f"{name}.yaml").read_text(encoding="utf-8")


def deploy(wish: Wish, desk: Desk, config: Config) -> dict[str, str]:
    """Makes what a job needs on AWS, or brings it up to date.

    Returns:
        The stack's outputs by name.

    Raises:
        Declined: the answer was no.
        UsageError: something must be given, or said otherwise.
        PunchError: AWS or Docker refused; the message says what, and the next step.
    """
    stack = Stack(wish.stack, config, desk.say)
    plan = check(wish, stack, config)
    registry = Registry(wish, config, desk)
    for note in plan.notes:
        desk.say(note)
    repositories = registry.propose(wish.stack) if plan.local_images else None
    go = [f"account {plan.account}, region {config.region}, stack {wish.stack}"]
    go += [f"push    {name}" for name in plan.local_images.values()]
    go += _shown(repositories) + [f"adopt   {line}" for line in plan.found.adopted]
    if plan.found.function:
        go.append(f"replace the function {plan.names.function}, which is saved in {SAVED}/ first")
    if (repositories or plan.found.adoptions or plan.found.function) and not desk.ask(go):
        registry.discard(repositories)
        raise Declined("nothing was changed")
    registry.execute(repositories)
    plan.parameters |= registry.push(plan.local_images)
    way_back = _replace_function(plan, config, desk)
    for adopt in plan.found.adoptions:
        adopt()
    try:
        _apply(stack, plan, desk)
    except PunchError as error:
        if way_back:
            steps = [error.next_step, f"the old function comes back by {way_back}"]
            error.next_step = "; ".join(filter(None, steps))
        raise
    if plan.local_images:
        registry.forget_old(plan.parameters)
    return stack.outputs()


def _apply(stack: Stack, plan: Plan, desk: Desk) -> None:
    proposal = stack.propose(template("punch"), plan.parameters)
    if proposal is None:
        desk.say(f"the stack {stack.name} is up to date")
        return
    if not desk.ask([f"the stack {stack.name}:", *_shown(proposal)]):
        stack.discard(proposal)
        raise Declined(f"the stack {stack.name} was not changed")
    desk.say("making it; a few minutes the first time")
    stack.execute(proposal)


def _shown(proposal: ChangeSet | None) -> list[str]:
    return [f"  {change}" for change in proposal.changes] if proposal else []


def _replace_function(plan: Plan, config: Config, desk: Desk) -> str:
    """Saves and deletes the function that is there; the command that brings it back."""
    if plan.found.function is None:
        return ""
    account = Account(config)
    folder = SAVED / f"{plan.names.function}-{time.strftime('%Y%m%dT%H%M%S')}"
    back = account.save_function(plan.found.function, folder)
    desk.say(f"the function {plan.names.function} is saved; the way back: {back}")
    account.delete_function(plan.names.function)
    return str(back)


def check(wish: Wish, stack: Stack, config: Config) -> Plan:
    """Looks at everything that a deployment needs, before anything is made.

    Raises:
        PunchError: what is missing. Where it is more than one thing, all of them.
    """
    account = Account(config)
    number = account.id()  # without credentials all else fails as well
    before = stack.parameters()
    names = Names(
        bucket=wish.bucket or before.get("BucketName") or f"punch-{number}-{config.region}",
        table=wish.table or before.get("TableName") or config.table,
        function=wish.function or before.get("FunctionName") or config.function,
    )
    plan = Plan(number, names, Found(), dict(wish.parameters), {}, [])
    plan.parameters |= {
        "BucketName": names.bucket,
        "TableName": names.table,
        "FunctionName": names.function,
    }
    problems: list[PunchError] = []
    for look in (_check_names, _check_images, _check_limits, _check_node):
        try:
            look(plan, wish, stack, account, before)
        except PunchError as problem:
            problems.append(problem)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        all_of_them = PunchError("\n".join(map(str, problems)))
        all_of_them.exit_code = problems[0].exit_code
        raise all_of_them
    return plan


def _check_names(
    plan: Plan, wish: Wish, stack: Stack, account: Account, before: Mapping[str, str]
) -> None:
    ours = {name for _, name in stack.resources().values()}
    plan.found = account.look(plan.names, ours)
    plan.parameters |= plan.found.parameters
    if plan.found.function and not wish.replace_function:
        settings = plan.found.function["Configuration"]
        kind = settings.get("Runtime") or settings.get("PackageType", "")
        raise UsageError(
            f"there is a function {plan.names.function} ({kind}) that is not ours",
            next_step="--function NAME makes another beside it; --replace-function takes its place,"
            f" and saves it in {SAVED}/ with a script that brings it back",
        )


def _check_images(
    plan: Plan, wish: Wish, stack: Stack, account: Account, before: Mapping[str, str]
) -> None:
    given_images = {"ImageUri": wish.image}
    if wish.node_subnet or before.get("NodeSubnet"):
        given_images["NodeImageUri"] = wish.node_image
    for parameter, name in given_images.items():
        reference = name or plan.parameters.get(parameter)
        if not reference:
            plan.local_images[parameter] = LOCAL_IMAGES[parameter]
            continue
        plan.parameters[parameter] = reference
        region = images.region_of(reference)
        if region and region != stack.region:
            raise UsageError(
                f"the image {reference} is in {region}, and this deployment in {stack.region}",
                next_step="push it to that region, or set AWS_REGION to the image's",
            )
    if not plan.local_images:
        return
    kinds = {}
    for parameter, name in list(plan.local_images.items()):
        try:
            kinds[name] = images.architecture(name)
        except PunchError:
            if not before.get(parameter):
                raise
            del plan.local_images[parameter]
            plan.notes.append(f"there is no image {name} here: the one that is deployed stays")
    given = plan.parameters.get("Architecture")
    for name, kind in kinds.items():
        if given and kind != given:
            raise UsageError(
                f"the image {name} is for {kind}, and Architecture={given} was given",
                next_step="build it on such a machine, or leave the parameter out",
            )
        given = kind
    if given:
        plan.parameters["Architecture"] = given


def _check_limits(
    plan: Plan, wish: Wish, stack: Stack, account: Account, before: Mapping[str, str]
) -> None:
    most, free = account.concurrency()
    kept = int(plan.parameters.get("ReservedConcurrency", "-1"))
    had = max(0, int(before.get("ReservedConcurrency", "-1")))
    left = free + had - max(0, kept)
    if kept >= 0 and left < min(UNRESERVED, most):
        raise UsageError(
            f"ReservedConcurrency={kept} leaves {left} of this account's {most} workers to other"
            f" functions, and AWS wants {min(UNRESERVED, most)} to stay",
            next_step="reserve less, or ask AWS for more (Service Quotas, Lambda, concurrent"
            " executions)",
        )
    if most < UNRESERVED:
        plan.notes.append(
            f"this account runs {most} workers at once: a job with more Lambda nodes cannot run."
            " Service Quotas, Lambda, concurrent executions, raises that"
        )


def _check_node(
    plan: Plan, wish: Wish, stack: Stack, account: Account, before: Mapping[str, str]
) -> None:
    subnet = wish.node_subnet or before.get("NodeSubnet")
    if not subnet:
        return
    plan.parameters["NodeSubnet"] = subnet
    plan.parameters.setdefault("NodeVpc", account.subnet_vpc(subnet))
    had = before.get("Architecture", "x86_64")
    kind = plan.parameters.get("Architecture", had)
    if "NodeAmi" not in plan.parameters and (not before.get("NodeAmi") or kind != had):
        # Kept from then on: another one replaces the machine.
        plan.parameters["NodeAmi"] = account.latest_ami(kind)


class Registry:
    """The images' repositories, and the way into them."""

    def __init__(self, wish: Wish, config: Config, desk: Desk) -> None:
        self._wish = wish
        self._config = config
        self._desk = desk
        self._repositories = images.Repositories(config)
        self.stack = Stack(f"{wish.stack}-registry", config, desk.say)

    def propose(self, prefix: str) -> ChangeSet | None:
        """What must be made before anything can be pushed."""
        ours = {name for _, name in self.stack.resources().values()}
        parameters = {"Prefix": prefix.lower()}
        for name in REPOSITORIES.values():
            create = f"Create{name.title()}Repository"
            repository = f"{prefix.lower()}-{name}"
            theirs = repository not in ours and self._repositories.uri(repository)
            parameters[create] = "no" if theirs else "yes"
        if set(parameters.values()) == {prefix.lower(), "no"}:
            return None
        return self.stack.propose(template("registry"), parameters)

    def discard(self, proposal: ChangeSet | None) -> None:
        if proposal:
            self.stack.discard(proposal)

    def execute(self, proposal: ChangeSet | None) -> None:
        if proposal:
            self.stack.execute(proposal)

    def push(self, names: Mapping[str, str]) -> dict[str, str]:
        """Pushes what is not there yet; the template's parameters that name the images."""
        pushed = {}
        for parameter, name in names.items():
            repository = f"{self._wish.stack.lower()}-{REPOSITORIES[parameter]}"
            self._desk.say(f"pushing {name}")
            image = self._repositories.push(name, repository, self._wish.registry)
            self._desk.say(f"{image.reference} ({image.size / 1e6:.0f} MB uncompressed)")
            pushed[parameter] = image.reference
        return pushed

    def forget_old(self, deployed: Mapping[str, str]) -> None:
        """Removes all but the newest images; never one that is deployed."""
        for parameter in ("ImageUri", "NodeImageUri"):
            if reference := deployed.get(parameter):
                self._repositories.forget_old(reference)


def wait_for_api(seconds: float, config: Config) -> None:
    """Waits until CloudFormation answers, or `seconds` have gone: `deploy` then says what is wrong.

    An emulation's API starts at the same time as the deployment.
    """
    from botocore.exceptions import BotoCoreError

    api = client("cloudformation", config, connect_timeout=1, retries={"total_max_attempts": 1})
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            api.list_stacks()
            return
        except BotoCoreError:
            time.sleep(0.1)


def environment(stack: Stack, region: str) -> dict[str, str]:
    """What `punch run` needs to find a deployment."""
    names = stack.parameters()
    env = {"AWS_BUCKET": names["BucketName"], "AWS_REGION": region}
    if names["TableName"] != Config.table:
        env["PUNCH_TABLE"] = names["TableName"]
    if names["FunctionName"] != Config.function:
        env["PUNCH_FUNCTION"] = names["FunctionName"]
    return env
