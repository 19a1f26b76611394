"""`punch sh`: runs a shell pipeline on many workers (docs/sh.md)."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from punchlib.aws.clients import client
from punchlib.aws.errors import translate
from punchlib.cli import output
from punchlib.cli.interrupt import interruptible
from punchlib.cli.options import EC2_HANDLER, Function, Local, Retries, Timeout
from punchlib.cli.run import How, Running, bucket_config
from punchlib.cli.sh_commands import own_forms, prove_commands
from punchlib.cli.sh_objects import Objects, target
from punchlib.config import Config
from punchlib.errors import UsageError
from punchlib.jobs import capacity, manifest, storage
from punchlib.jobs.launch import LambdaLauncher
from punchlib.jobs.placement import Place
from punchlib.jobs.runner import RunRequest
from punchlib.node.probe_event import Probe
from punchlib.runs import cost
from punchlib.sh import forecast
from punchlib.sh import plan as planning
from punchlib.sh.emit import Emitter
from punchlib.sh.pieces import Input, best_width, pieces
from punchlib.sh.plan import ON_EVERY_WORKER, WIDEST, Plan
from punchlib.sh.reading import Pipeline, read

AUTO = "auto"
#: Workers that we take without being told to.
_MOST_BY_ITSELF = 64


def sh(
    pipeline: Annotated[
        str, typer.Argument(metavar="PIPELINE|FILE", help="A pipeline, or a file that holds one.")
    ] = "",
    width: Annotated[
        str, typer.Option(metavar="N", help=f"Workers, 1 to {WIDEST}; auto goes by the size.")
    ] = AUTO,
    local: Local = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say how each stage would run, and why; run nothing.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="The same, with workers, time and cost.")
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
            help="Your own commands that may run on pieces (~/.config/punch/commands.toml).",
        ),
    ] = None,
    prove: Annotated[
        bool, typer.Option("--prove", help="Prove them (those of FILE) on this machine.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
    retries: Retries = 1,
    timeout: Timeout = None,
    function: Function = Config.function,
    ec2: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Run the last stages on this EC2 handler."),
    ] = None,
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
        wanted = _width(width)
        if emit and emit.exists() and (not emit.is_dir() or any(emit.iterdir())):
            raise UsageError(f"{emit} exists and is not empty", next_step="name a new folder")
        objects = Objects(local, put or [], folder)
        parsed = read(_script(pipeline), os.environ, objects.matching)
        more = own_forms(commands)
        plan = planning.make(parsed, more=more)
        if explain and not emit and not dry_run:
            _tell(plan)
            return
        result = target(parsed.target, objects, force=force)
        found = {name: objects.find(name) for name in _names(plan)}
        if plan.cuts_lines and (open_end := objects.without_newline(plan.inputs or ())):
            plan = planning.make(parsed, whole=f"{open_end} does not end with a newline", more=more)
        if plan.has_workers and not wanted:
            wanted = best_width(plan, found, _most(local, function))
        if explain or dry_run:
            _tell(plan)
        if dry_run:
            _forecast(plan, wanted, found, function=None if local else function)
            return
        if not local:
            _check_commands(plan, LambdaLauncher(function, bucket_config(), 1))
        key = result if isinstance(result, str) else ""
        kept = emit or folder / "job"
        last: Place = "ec2" if ec2 else "lambda"
        comment = _comment(parsed, objects.puts)
        Emitter(plan, wanted, found, key, objects.token, last).write(kept, comment)
        if explain:
            return
        to = storage.STDOUT if isinstance(result, str) else result
        request = RunRequest(objects.puts, {}, timeout, result=to)
        how = How(local, retries, quiet=quiet, function=function, ec2=ec2 or EC2_HANDLER)
        running = Running(manifest.load(kept), request, how, f"punch sh {pipeline}"[:200])
        try:
            running.run()
        finally:
            objects.sweep()
        running.leave()


def _check_commands(plan: Plan, workers: LambdaLauncher) -> None:
    """Refuses a command that is not on the workers; asks one, where any may not be there.

    Raises:
        UsageError: one is not; names all.
        NodeLost: no worker answers.
    """
    asked = plan.programs - ON_EVERY_WORKER
    if not asked:
        return
    missing = workers.probe(Probe("commands", commands=tuple(sorted(asked)))).get("missing")
    if isinstance(missing, list) and missing:
        raise UsageError(
            f"the workers have no {', '.join(map(str, missing))}",
            next_step="add it to the function's image (docs/deploy-aws.md), or use another command",
        )


def _width(text: str) -> int:
    """Workers; 0 leaves it to the size.

    Raises:
        UsageError: it is no possible number.
    """
    if text == AUTO:
        return 0
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= WIDEST:
        raise UsageError(f"--width {text} is not possible", next_step=f"use 1 to {WIDEST}, or auto")
    return int(text)


def _most(local: bool, function: str) -> int:
    """How many workers can run at once."""
    if local:
        return len(os.sched_getaffinity(0))
    allowed, _ = capacity.most_at_once(client("lambda", bucket_config()), function)
    # Some are left for the nodes that gather, and for whoever else runs something.
    return max(1, min(_MOST_BY_ITSELF, (allowed or _MOST_BY_ITSELF) // 2))


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
    _say([f"{t.text:{width}}  {t.how}: {t.why}" for t in plan.told])


def _forecast(plan: Plan, width: int, found: Mapping[str, Input], function: str | None) -> None:
    """Says how much it would be; `function` is None at home."""
    cut = pieces(plan, width, found)
    size = sum(found[name].size for name in plan.inputs or ())
    workers = f"{len(cut)} workers" if len(cut) > 1 else "1 worker" if cut else "no workers"
    count = forecast.nodes(len(cut), gather=not plan.puts_pieces)
    lines = [
        f"{workers} and {count - len(cut)} that gather, for {size:,} bytes in "
        f"{len(plan.inputs or ())} inputs; about {forecast.seconds(cut, size):.1f} s"
    ]
    if function:
        memory, prices = _memory(function), cost.load_prices()
        spent = forecast.cost(cut, count, size, memory, prices)
        lines.append(
            f"about {cost.money(spent.total)} on AWS with {memory >> 20} MB each, prices of "
            f"{spent.as_of}, and {cost.money(prices['transfer_gb'])} for each GB that "
            "they send to each other"
        )
    _say(lines)


def _memory(function: str) -> int:
    """The memory of the function's workers, in bytes.

    Raises:
        PunchError: it cannot be asked.
    """
    asked = client("lambda", bucket_config())
    try:
        size = asked.get_function_configuration(FunctionName=function)["MemorySize"]
    except Exception as error:
        raise translate(error, f"the function {function!r} cannot be asked") or error from error
    return int(size) << 20


def _say(lines: list[str]) -> None:
    output.stdout("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))


def _comment(parsed: Pipeline, puts: Mapping[str, Path]) -> str:
    """What is at the top of each script."""
    line = " | ".join(stage.text for stage in parsed.stages)
    again = "".join(f" --put {shlex.quote(f'{k}={file}')}" for k, file in puts.items())
    return f"punch sh: {line}\nagain: punch run DIR{again}"
