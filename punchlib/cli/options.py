"""Options that several commands have: the same words wherever they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from punchlib.errors import UsageError
from punchlib.node import ec2_handler

#: Where an EC2 handler listens unless it is told otherwise.
EC2_HANDLER = f"{ec2_handler.HOST}:{ec2_handler.PORT}"

Local = Annotated[
    bool, typer.Option("--local", help="Everything on this machine: no AWS, no Docker.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Function = Annotated[
    str, typer.Option(metavar="NAME", help="The Lambda function.", envvar="PUNCH_FUNCTION")
]
Ec2 = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT",
        help="The EC2 handler; unix:PATH on this machine.",
        envvar="PUNCH_EC2_HANDLER",
    ),
]
#: The same where no handler need be asked.
Ec2IfAny = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="An EC2 handler; unix:PATH on this machine.",
        envvar="PUNCH_EC2_HANDLER",
    ),
]
Retries = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Run again, N times at most, what fails for a reason that may pass.",
        min=0,
    ),
]
Timeout = Annotated[
    float | None, typer.Option(metavar="S", help="Give up after S seconds (900).", min=0.1)
]


def pairs(option: str, texts: list[str] | None) -> dict[str, Path]:
    """Reads values of the form KEY=FILE, split at the last "=".

    Args:
        option: its name, for messages.
        texts: its values.

    Raises:
        UsageError: one has another form, or a key is named twice.
    """
    found: dict[str, Path] = {}
    for text in texts or ():
        key, equals, file = text.rpartition("=")
        if not equals or not key or not file:
            raise UsageError(
                f"{option} {text!r} is not KEY=FILE",
                next_step=f"for instance {option} in.txt=in.txt",
            )
        if key in found:
            raise UsageError(f"{option} names the key {key!r} twice")
        found[key] = Path(file)
    return found
