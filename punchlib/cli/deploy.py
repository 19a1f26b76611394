"""`punch deploy`: all that a job needs on AWS.

What it does is imported when it does it: `punch run` starts three times as fast without.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from punchlib.cli import output
from punchlib.cli.interrupt import interruptible
from punchlib.config import Config
from punchlib.errors import UsageError

if TYPE_CHECKING:
    from punchlib.aws.deploy import Desk

StackName = Annotated[str, typer.Option("--stack", metavar="NAME", help="The stack's name.")]
Region = Annotated[
    str | None,
    typer.Option(metavar="REGION", help="Where; else AWS_REGION, or your profile's region."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Ask nothing.")]


def deploy(
    bucket: Annotated[
        str | None, typer.Option(metavar="NAME", help="The bucket (punch-ACCOUNT-REGION).")
    ] = None,
    function: Annotated[
        str | None, typer.Option(metavar="NAME", help="The function (lambda).")
    ] = None,
    table: Annotated[
        str | None, typer.Option(metavar="NAME", help="The rendezvous table (rdv).")
    ] = None,
    stack: StackName = "punch",
    region: Region = None,
    image: Annotated[
        str | None,
        typer.Option(metavar="URI", help="The Lambda image in ECR; else punch-lambda:local goes."),
    ] = None,
    node_subnet: Annotated[
        str | None,
        typer.Option(metavar="SUBNET", help="Start an EC2 node in this public subnet."),
    ] = None,
    node_image: Annotated[
        str | None,
        typer.Option(metavar="URI", help="The node's image in ECR; else punch-node:local goes."),
    ] = None,
    replace_function: Annotated[
        bool,
        typer.Option("--replace-function", help="A function of that name may go; it is saved."),
    ] = False,
    parameter: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A parameter of the template. Repeatable."),
    ] = None,
    no_smoke_test: Annotated[
        bool, typer.Option("--no-smoke-test", help="Do not run the example job in the end.")
    ] = False,
    yes: Yes = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    registry: Annotated[str | None, typer.Option(hidden=True, help="For emulations.")] = None,
    wait: Annotated[float, typer.Option(hidden=True, help="For emulations.")] = 0,
) -> None:
    """Makes what jobs need on AWS, or brings it up to date, and runs the example job there.

    What is given once is kept. Everything is shown before it is made.
    """
    from punchlib.aws import deploy as deployment
    from punchlib.aws.stacks import Stack

    config = in_region(region)
    wish = deployment.Wish(
        image=image,
        bucket=bucket,
        function=function,
        table=table,
        stack=stack,
        node_image=node_image,
        node_subnet=node_subnet,
        replace_function=replace_function,
        registry=registry,
        parameters=_parameters(parameter),
    )
    with interruptible():
        if wait:
            deployment.wait_for_api(wait, config)
        outputs = deployment.deploy(wish, desk(yes), config)
        env = deployment.environment(Stack(stack, config), config.region)
        if not no_smoke_test:
            _smoke_test(replace(config, bucket=env["AWS_BUCKET"]), outputs["Function"])
    if json:
        output.data({"v": 1, "stack": stack, "outputs": outputs, "environment": env})
        return
    for name, value in env.items():
        sys.stdout.write(f"export {name}={value}\n")


def _smoke_test(config: Config, function: str) -> None:
    from punchlib.jobs import smoke_test
    from punchlib.jobs.events import EventSink
    from punchlib.jobs.launch import LambdaLauncher

    output.console.print("the example job, all of it on Lambda:")
    with output.Progress([]) as progress:
        smoke_test.run(LambdaLauncher(function, config, 4), config, EventSink(progress))
    output.console.print("[green]it works[/green]")


def in_region(region: str | None) -> Config:
    """The environment's configuration, in another region where one is given."""
    config = Config.from_env()
    return replace(config, region=region) if region else config


def desk(yes: bool) -> Desk:
    """Speaks on stderr, and asks there.

    Raises:
        UsageError: when it should ask and nobody is there.
    """
    from punchlib.aws.deploy import Desk

    def say(line: str) -> None:
        output.console.print(line, markup=False)

    def ask(lines: list[str]) -> bool:
        for line in lines:
            say(line)
        if yes:
            return True
        if not sys.stdin.isatty():
            raise UsageError("nobody is there to be asked", next_step="say --yes")
        return typer.confirm("go on?", err=True)

    return Desk(say, ask)


def _parameters(given: list[str] | None) -> dict[str, str]:
    parameters = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--parameter {text} is not NAME=VALUE")
        parameters[name] = value
    return parameters
