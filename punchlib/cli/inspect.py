"""`punch inspect`: what a run, or a rendezvous key, waits for."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from punchlib.aws.clients import client
from punchlib.aws.errors import translate
from punchlib.cli.interrupt import interruptible
from punchlib.config import Config
from punchlib.errors import PunchError, RendezvousError, UsageError
from punchlib.runs import meeting_point, run_folder
from punchlib.runs.inspection import Inspection, item_of


def inspect(
    what: Annotated[
        str, typer.Argument(metavar="[RUN|KEY]", help="A run of this machine, or a KEY.")
    ] = "",
) -> None:
    """Says what each node of a run does and waits for, or who is registered under a KEY.

    A run is asked while it goes on: its nodes' processes, and the FIFOs that are not open at both
    ends. A KEY is looked up in the rendezvous table (PUNCH_TABLE), under PASH_JOB_ID where set.
    """
    with interruptible():
        try:
            folder = run_folder.find(what)
        except UsageError:
            if not what or "/" in what:
                raise
            lines = _of_key(what)
        else:
            inspection = Inspection(folder)
            if inspection.runs:
                inspection.ask()
            lines = inspection.lines()
    sys.stdout.write("\n".join(lines) + "\n")


def _of_key(key: str) -> list[str]:
    config = Config.from_env()
    full = config.scoped(key)
    try:
        item = item_of(client("dynamodb", config), config.table, full)
    except PunchError:
        raise
    except Exception as error:
        ours = translate(error, f"the table {config.table!r}", RendezvousError)
        if ours is None:
            raise
        ours.next_step = ours.next_step or "check AWS_REGION and PUNCH_TABLE"
        raise ours from error
    return meeting_point.explain(full, item)
