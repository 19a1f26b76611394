"""`punch ec2-handler`: runs the scripts of a job on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from punchlib.node import ec2_handler as handler


def ec2_handler(
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than loopback needs a token.")
    ] = handler.HOST,
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = handler.PORT,
    unix: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Listen on this Unix socket instead."),
    ] = None,
    pashlib: Annotated[
        Path | None,
        typer.Option(help="Show the scripts this file as /opt/pashlib.", exists=True),
    ] = None,
) -> None:
    """Takes events on a socket and runs their scripts here, each with a /tmp of its own.

    The scripts run in $PASH_TOP, which holds runtime/ and aws/, and come from s3://$AWS_BUCKET.
    Without a token only this user's own processes (and root's) may call; with one, in
    PUNCH_HANDLER_TOKEN or in the file that PUNCH_HANDLER_TOKEN_FILE names, whoever knows it.
    """
    raise typer.Exit(handler.main(host, port, unix=unix, pashlib=pashlib))
