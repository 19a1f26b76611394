"""`punch doctor`: whether this machine and a worker have what jobs need, and what to mend."""

from __future__ import annotations

import contextlib
import itertools
import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

import punchlib
from punchlib.cli import output
from punchlib.cli.interrupt import interruptible
from punchlib.cli.options import Ec2IfAny, Function, Json, Local
from punchlib.config import Config
from punchlib.doctor.finding import Finding, Level, fail, ok, warn, worst
from punchlib.errors import PunchError, UsageError, escape
from punchlib.jobs.launch import Ec2Launcher, LambdaLauncher, Probed
from punchlib.jobs.placement import Place
from punchlib.local import isolation
from punchlib.node.probe_event import Probe
from punchlib.runtime.handler_call import take_token

#: The form of `--json`.
VERSION = 1
_COLOUR = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}
#: Seconds for a worker to answer, its cold start included; what it looks at takes ten.
ANSWER = 90.0
#: Columns of level and name; text begins behind them where there is room for it.
_LEVEL, _NAME, _ROOM = 6, 16, 40
_SECRET = ("PUNCH_JOB_KEY", "PUNCH_HANDLER_TOKEN")


def doctor(
    function: Function = Config.function,
    ec2: Ec2IfAny = None,
    here: Annotated[bool, typer.Option("--here", help="Ask no worker and no handler.")] = False,
    local: Local = False,
    json: Json = False,
) -> None:
    """Looks at this machine, its network and AWS, and has a worker look at its own.

    Each line is ok, warn or fail, and what to do about it. Exits with 0 when all is ok, 1 with a
    warn, 2 with a fail. Nothing is changed anywhere.
    """
    with interruptible():
        if local and here:
            raise UsageError("--local has a worker and a handler of its own, which are asked")
        with _places(function, ec2, here=here, local=local) as places:
            config, settings = _settings(function)
            found = _examine(config, settings, places, local=local, json=json)
    level = worst(finding for place in found.values() for finding in place)
    if json:
        output.data(_report(found, level))
    elif level is Level.OK:
        output.console.print("[green]all is well[/green]")
    raise typer.Exit(level.exit_code)


def _report(found: Mapping[str, list[Finding]], level: Level) -> dict[str, Any]:
    return {
        "v": VERSION,
        "ok": level is Level.OK,
        "level": level.value,
        "version": punchlib.__version__,
        "places": {place: [f.to_json() for f in each] for place, each in found.items()},
    }


@contextlib.contextmanager
def _places(
    function: str, ec2: str | None, *, here: bool, local: bool
) -> Iterator[dict[str, Probed | PunchError]]:
    """Who is asked beside this machine; an error where nobody can be."""
    if local:
        with local_cloud() as launchers:
            yield {"worker": launchers["lambda"], "node": launchers["ec2"]}
        return
    places: dict[str, Probed | PunchError] = {}
    if here:
        yield places
        return
    try:
        places["worker"] = LambdaLauncher(function, Config.from_env(), 1)
    except PunchError as error:
        places["worker"] = error
    if ec2:
        Ec2Launcher(ec2)  # raises where it is no address
        try:
            places["node"] = Ec2Launcher(ec2, take_token())
        except PunchError as error:
            places["node"] = error
    yield places


@contextlib.contextmanager
def local_cloud() -> Iterator[Mapping[Place, Probed]]:
    """The embedded cloud, in a world of its own; this process lives in it from here on."""
    root = isolation.enter()
    from punchlib.local.cloud import LocalCloud

    with LocalCloud(root, verbose=bool(os.environ.get("PUNCH_DEBUG"))) as cloud:
        yield cloud.probed


def _settings(function: str) -> tuple[Config, Finding]:
    """What the environment says; the defaults where it cannot be understood."""
    given = sorted(
        name if name in _SECRET else f"{name}={value}"
        for name, value in os.environ.items()
        if name.startswith(("PUNCH_", "PASH_")) and value
    )
    try:
        config = Config.from_env()
    except UsageError as error:
        step = f"{error.next_step or 'mend it'}; the rest was looked at with the defaults"
        return Config(), fail("settings", error.message, step)
    config = replace(config, function=function)
    return config, ok("settings", ", ".join(given) or "no PUNCH_ or PASH_ variable is set")


def _examine(
    config: Config,
    settings: Finding,
    places: Mapping[str, Probed | PunchError],
    *,
    local: bool,
    json: bool,
) -> dict[str, list[Finding]]:
    from punchlib.node import probe as probes  # which takes longer than any other command's start

    show = Screen(quiet=json)
    found: dict[str, list[Finding]] = {"here": []}
    asked = {name: probes.aside(partial(_ask, place)) for name, place in places.items()}
    show.title("here")
    for finding in itertools.chain([settings], probes.examine(config, node=local)):
        found["here"].append(finding)
        show(finding)
    for name, answer in asked.items():
        show.title(name)
        try:
            found[name] = answer.result(ANSWER)
        except TimeoutError:
            what = f"no answer within {ANSWER:.0f} s"
            found[name] = [warn("probe", what, "look into its log, and at its time-out")]
        for finding in found[name]:
            show(finding)
    return found


def _ask(place: Probed | PunchError) -> list[Finding]:
    """What a worker finds; one line where it cannot be asked."""
    from punchlib.node import probe as probes

    try:
        if isinstance(place, PunchError):
            raise place
        said = probes.read(place.probe(Probe("doctor")))
    except PunchError as error:
        # Elsewhere it may be no fault: without credentials nobody can be asked.
        step = error.next_step or "mend what stands under `here` first"
        return [warn("probe", f"could not be asked: {error.message}", step)]
    theirs, ours = said["version"], punchlib.__version__
    if theirs != ours:
        what = f"punchlib {theirs} answered, and this is {ours}"
        version = warn("version", what, "deploy the same release on every node")
    else:
        version = ok("version", f"punchlib {theirs}, as here")
    return [version, *said["findings"]]


class Screen:
    """Findings on stdout, as wide as a terminal is; elsewhere a line is a line."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        #: Rich honours NO_COLOR, and writes no colours where no terminal is.
        self._console = Console(highlight=False, soft_wrap=True)
        self._width = self._console.width if self._console.is_terminal else 0
        self._titles = 0

    def title(self, text: str) -> None:
        if not self._quiet:
            self._console.print("\n" * bool(self._titles) + text, markup=False)
            self._titles += 1

    def __call__(self, finding: Finding) -> None:
        if self._quiet:
            return
        colour, text = _COLOUR[finding.level], Text()
        for n, line in enumerate(self._lines(finding)):
            if not n:
                text.append(line[:_LEVEL], colour)
                text.append(line[_LEVEL:])
            else:
                text.append("\n" + line)
        self._console.print(text)

    def _lines(self, finding: Finding) -> list[str]:
        """The first begins with the level."""
        level, name = f"{finding.level:{_LEVEL}}", safe(finding.name)
        said = [safe(finding.what)]
        if finding.next_step:
            said.append(f"next: {safe(finding.next_step)}")
        if not self._width:
            head = f"{level}{name:{_NAME}}"
            return [head + said[0], *(" " * _LEVEL + more for more in said[1:])]
        narrow = self._width < _LEVEL + _NAME + _ROOM
        indent = " " * (2 if narrow else _LEVEL + _NAME)
        lines = list(_wrapped(said, indent, self._width))
        if narrow:
            return [f"{level}{name}", *lines]
        return [f"{level}{name:{_NAME}}{lines[0][len(indent) :]}", *lines[1:]]


def _wrapped(texts: Iterable[str], indent: str, width: int) -> Iterator[str]:
    for text in texts:
        yield from textwrap.wrap(
            text,
            max(width, len(indent) + 10),
            initial_indent=indent,
            subsequent_indent=indent,
            break_on_hyphens=False,
        )


def safe(text: str) -> str:
    """What may hold text from anywhere, on one line."""
    return escape(text, 2000).replace("\n", " ")
