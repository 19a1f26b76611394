"""`punch`: the command line. Commands live in modules of their own and are loaded here."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from punchlib.cli import (
    deploy,
    destroy,
    doctor,
    ec2_handler,
    inspect,
    output,
    ping,
    report,
    run,
    runs,
    sh,
    warm,
)
from punchlib.cli.interrupt import Interrupted
from punchlib.errors import PunchError
from punchlib.jobs import result_stream
from punchlib.local import isolation

app = typer.Typer(
    name="punch",
    help="Runs PaSh serverless jobs over EC2 and Lambda, and on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks, and every step of every part.")
    ] = False,
) -> None:
    if debug:
        os.environ["PUNCH_DEBUG"] = "1"


app.command("run")(run.run)
app.command("sh")(sh.sh)
app.command("runs")(runs.runs)
app.command("logs")(runs.logs)
app.command("inspect")(inspect.inspect)
app.command("warm")(warm.warm)
app.command("clean")(runs.clean)
app.command("report")(report.report)
app.command("deploy")(deploy.deploy)
app.command("destroy")(destroy.destroy)
app.command("doctor")(doctor.doctor)
app.command("ping")(ping.ping)
app.command("ec2-handler")(ec2_handler.ec2_handler)


def main() -> int:
    """The console script: every expected error becomes one message and its exit status."""
    output.take_streams()
    code = _run()
    if isolation.entered:
        # Taking the interpreter down object by object takes a tenth of such a run's time.
        sys.stderr.flush()
        os._exit(code)
    return code


def _run() -> int:
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        output.let_go_of_stdout()
        return result_stream.READER_GONE
    except SystemExit as end:  # how Typer returns, usage errors (2) included
        return end.code if isinstance(end.code, int) else 1
    except Interrupted as stop:
        output.console.print(f"stopped by {stop.name}")
        return stop.exit_code
    except PunchError as error:
        if os.environ.get("PUNCH_DEBUG"):
            traceback.print_exc()
        output.error(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
