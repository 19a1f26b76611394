"""`punch sh`: runs a shell pipeline on many workers (docs/sh.md)."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from punchlib.cli import output
from punchlib.cli.interrupt import interruptible
from punchlib.cli.options import EC2_HANDLER, Ec2, Function, Local, Retries, Timeout
from punchlib.cli.run import How, Running
from punchlib.cli.sh_commands import own_forms, prove_commands
from punchlib.cli.sh_objects import PREFIX, Objects, target
from punchlib.config import Config
from punchlib.errors import PunchError, UsageError
from punchlib.jobs import manifest
from punchlib.jobs.runner import RunRequest
from punchlib.sh import plan as planning
from punchlib.sh.emit import Emitter
from punchlib.sh.plan import WIDEST, Plan
from punchlib.sh.reading import Pipeline, read

#: As the status of who writes into a pipe that nobody reads: 128 + SIGPIPE.
_READER_GONE = 141


def sh(
    pipeline: Annotated[
        str, typer.Argument(metavar="PIPELINE|FILE", help="A pipeline, or a file that holds one.")
    ] = "",
    width: Annotated[int, typer.Option(metavar="N", help=f"Workers, 1 to {WIDEST}.")] = 4,
    local: Local = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say how each stage would run, and why; run nothing.")
    ] = False,
    emit: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the job's scripts in DIR.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over an output that exists.")
    ] = False,
    put: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=FILE", help="With --local, s3://…/KEY is FILE. Repeatable."),
    ] = None,
    commands: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Your own commands that may run on pieces (~/.config/punchlib/commands.toml).",
        ),
    ] = None,
    prove: Annotated[
        bool, typer.Option("--prove", help="Prove them (those of FILE) on this machine.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
    retries: Retries = 1,
    timeout: Timeout = None,
    function: Function = Config.function,
    ec2: Ec2 = EC2_HANDLER,
) -> None:
    """Runs a pipeline on N workers; the result is what one shell gives under LC_ALL=C.

    Inputs: files, s3://BUCKET/KEY, stdin. Outputs: stdout, > FILE, > s3://BUCKET/KEY.
    """
    with interruptible(), _scratch() as folder:
        if prove:
            prove_commands(Path(pipeline) if pipeline else commands)
            return
        if not pipeline:
            raise UsageError("there is no pipeline", next_step="punch sh 'cat FILE | sort | uniq'")
        if not 1 <= width <= WIDEST:
            raise UsageError(f"--width {width} is not possible", next_step=f"use 1 to {WIDEST}")
        if emit and emit.exists() and (not emit.is_dir() or any(emit.iterdir())):
            raise UsageError(f"{emit} exists and is not empty", next_step="name a new folder")
        parsed = read(_script(pipeline), os.environ)
        more = own_forms(commands)
        plan = planning.make(parsed, more=more)
        if explain and not emit:
            _tell(plan)
            return
        objects = Objects(local, put or [], folder)
        result = target(parsed.target, objects, force=force)
        found = {name: objects.find(name) for name in _names(plan)}
        if plan.mapped and (open_end := objects.without_newline(plan.inputs or ())):
            plan = planning.make(parsed, whole=f"{open_end} does not end with a newline", more=more)
        token = objects.token
        key = result if isinstance(result, str) else f"{PREFIX}/{token}/result"
        kept = emit or folder / "job"
        Emitter(plan, width, found, key, token).write(kept, _comment(parsed, objects.puts, key))
        if explain:
            _tell(plan)
            return
        gets = {} if isinstance(result, str) else {key: result}
        request = RunRequest(objects.puts, gets, timeout)
        how = How(local, retries, quiet=quiet, function=function, ec2=ec2)
        try:
            Running(manifest.load(kept), request, how, f"punch sh {pipeline}"[:200]).run()
        except PunchError as error:
            if isinstance(error.__cause__, BrokenPipeError):
                _let_go_of_stdout()
                gone = PunchError("stdout was closed before the end of the result")
                gone.exit_code = _READER_GONE
                raise gone from error
            raise
        finally:
            objects.sweep()


def _let_go_of_stdout() -> None:
    """What is still in Python's buffer has no reader: its flush at the end would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _scratch() -> Iterator[Path]:
    # Under --local this process and the one that goes on in the run's namespaces both come by.
    folder = Path(tempfile.mkdtemp(prefix="punch-sh-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _script(text: str) -> str:
    """The pipeline: the argument, or what is in the file that it names."""
    try:
        if not Path(text).is_file():
            return text
    except (OSError, ValueError):
        return text  # no file has such a name
    try:
        return Path(text).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{text} is no valid UTF-8") from None
    except OSError as error:
        raise UsageError(f"{text} cannot be read: {error.strerror}") from error


def _names(plan: Plan) -> list[str]:
    """All that the nodes read."""
    tail = [command.words[index] for command in plan.tail for index in command.inputs]
    return [*(plan.inputs or ()), *tail]


def _tell(plan: Plan) -> None:
    width = max(len(t.text) for t in plan.told)
    lines = [f"{t.text:{width}}  {t.how}: {t.why}" for t in plan.told]
    output.stdout("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))


def _comment(parsed: Pipeline, puts: Mapping[str, Path], key: str) -> str:
    """What is at the top of each script."""
    line = " | ".join(stage.text for stage in parsed.stages)
    again = "".join(f" --put {shlex.quote(f'{k}={file}')}" for k, file in puts.items())
    again += f" --get {shlex.quote(key)}=FILE"
    return f"punch sh: {line}\nagain: punch run DIR{again}"
