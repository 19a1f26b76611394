"""`punch ec2-handler`: runs the scripts of a job on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from punchlib.node import ec2_handler as handler


def ec2_handler(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = handler.PORT,
    pashlib: Annotated[
        Path | None,
        typer.Option(help="Show the scripts this file as /opt/pashlib.", exists=True),
    ] = None,
) -> None:
    """Takes events on a TCP port and runs their scripts here, each with a /tmp of its own.

    The scripts run in $PASH_TOP, which holds runtime/ and aws/, and come from s3://$AWS_BUCKET.
    """
    raise typer.Exit(handler.serve(host, port, pashlib=pashlib))
