"""`punch warm`: starts workers before a job needs them."""

from __future__ import annotations

from typing import Annotated

import typer

from punchlib.cli import output
from punchlib.cli.interrupt import interruptible
from punchlib.cli.options import Function, Json
from punchlib.config import Config
from punchlib.jobs import capacity, warming
from punchlib.jobs.launch import LambdaLauncher


def warm(
    workers: Annotated[int, typer.Argument(metavar="N", help="Workers.", min=1, max=warming.MOST)],
    function: Function = Config.function,
    json: Json = False,
) -> None:
    """Has N workers of the function ready at once; Lambda keeps them for some minutes.

    Exits with 0 when all are, 1 when some could not be had.
    """
    with interruptible():
        config = Config.from_env()
        launcher = LambdaLauncher(function, config, workers)
        capacity.check(launcher.client, function, workers)
        found = warming.warm(launcher.probe, workers)
    if json:
        facts = {"v": 1, "ok": not found.lost, "cold": found.cold, "warm": found.warm}
        lost = [error.message for error in found.lost]
        output.data({**facts, "lost": lost, "seconds": round(found.seconds, 3)})
    else:
        output.console.print(found.sentence())
        if found.lost:
            output.error(found.lost[0])
    raise typer.Exit(1 if found.lost else 0)
