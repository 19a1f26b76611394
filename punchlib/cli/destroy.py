"""`punch destroy`: takes a deployment away again."""

from __future__ import annotations

from typing import Annotated

import typer

from punchlib.cli.deploy import Region, StackName, Yes, desk, in_region
from punchlib.cli.interrupt import interruptible


def destroy(
    stack: StackName = "punch",
    region: Region = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="The bucket with its data and the table go as well.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Lists what `punch deploy` made, removes it, and looks whether anything is left.

    The bucket and the table stay, unless --purge is given.
    """
    from punchlib.aws import destroy as destruction

    told = desk(yes)
    with interruptible():
        kept = destruction.destroy(stack, told, in_region(region), purge=purge)
    for line in kept:
        told.say(f"kept: {line}")
