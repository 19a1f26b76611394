"""`punch deploy`: all that a job needs on AWS.

What it does is imported when it does it: `punch run` starts three times as fast without.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from punchlib.cli import output
from punchlib.cli.interrupt import interruptible
from punchlib.cli.options import Json
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
    layer: Annotated[
        bool, typer.Option("--layer", help="Only a layer for zip functions: write and publish it.")
    ] = False,
    layer_python: Annotated[
        str, typer.Option(metavar="VERSION", help="The zip function's Python, from 3.12 on.")
    ] = "3.12",
    layer_architecture: Annotated[
        str, typer.Option(metavar="NAME", help="Its processor: x86_64 or arm64 (this machine's).")
    ] = "",
    yes: Yes = False,
    json: Json = False,
    registry: Annotated[str | None, typer.Option(hidden=True, help="For emulations.")] = None,
    wait: Annotated[float, typer.Option(hidden=True, help="For emulations.")] = 0,
) -> None:
    """Makes what jobs need on AWS, or brings it up to date, and runs the example job there.

    What is given once is kept. Everything is shown before it is made.
    """
    from punchlib.aws import deploy as deployment
    from punchlib.aws.stacks import Stack

    config = in_region(region)
    if layer:
        with interruptible():
            _layer(stack, layer_python, layer_architecture, desk(yes), config, json=json)
        return
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


def _layer(
    name: str, python: str, architecture: str, desk: Desk, config: Config, *, json: bool
) -> None:
    from punchlib.aws import layers
    from punchlib.runtime import layer

    architecture = architecture or layer.this_architecture()
    file = Path(f"punch-layer-python{python}-{architecture}.zip")
    made = layer.make(file, python, architecture)
    desk.say(
        f"{file}: {made.zipped / 1e6:.1f} MB of {layer.MOST_ZIPPED / 1e6:.0f},"
        f" {made.unzipped / 1e6:.0f} MB unzipped of {layer.MOST_UNZIPPED / 1e6:.0f}"
    )
    if not made.compiled:
        desk.say(
            f"there is no python{python} here to compile it: a fresh worker takes seconds longer"
            " for its imports"
        )
    arn = layers.published(name, content := file.read_bytes(), config)
    if arn is None:
        if not desk.ask([f"publish it in {config.region} as a new version of the layer {name}"]):
            output.console.print(f"not published: {file} is here", markup=False)
            return
        arn = layers.publish(name, content, python, architecture, config)
    if json:
        facts = made._asdict() | {"file": str(file)}
        output.data({"v": 1, "layer": arn, "handler": layer.HANDLER, **facts})
        return
    desk.say("your function takes it by:")
    sys.stdout.write(
        f"aws lambda update-function-configuration --function-name {config.function}"
        f" --runtime python{python} --layers {arn} --handler {layer.HANDLER}\n"
    )


def _smoke_test(config: Config, function: str) -> None:
    from punchlib.jobs import smoke_test
    from punchlib.jobs.events import EventSink
    from punchlib.jobs.launch import LambdaLauncher

    output.console.print("the example job, all of it on Lambda:")
    with output.Progress({}) as progress:
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
