"""`punch ping`: real connections to a worker, or to another `punch ping`, and how good they are."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

import punchlib
from punchlib.cli import output
from punchlib.cli.doctor import local_cloud, safe
from punchlib.cli.interrupt import interruptible
from punchlib.cli.options import EC2_HANDLER, Ec2, Function, Json, Local
from punchlib.config import Config, Route
from punchlib.errors import PunchError, UsageError
from punchlib.jobs.launch import Ec2Launcher, LambdaLauncher, Probed
from punchlib.names import check_text
from punchlib.node.probe_event import MOST_PINGS, Probe
from punchlib.runtime.handler_call import take_token

if TYPE_CHECKING:
    # Connections take longer to import than any other command to start: when one is made.
    from concurrent.futures import Future

    from punchlib.doctor.ping import Attempt

#: The form of `--json`.
VERSION = 1
DIRECT, BY_S3, NOTHING = 0, 1, 2
#: Attempts of `--until-direct` where `--count` says nothing else.
UNTIL = 10
#: Seconds that a worker gets for its answer when all is measured.
LAST_WORDS = 15.0


def ping(
    key: Annotated[
        str | None,
        typer.Argument(metavar="KEY", help="What another `punch ping KEY` is started with."),
    ] = None,
    worker: Annotated[bool, typer.Option("--worker", help="A Lambda worker answers.")] = False,
    node: Annotated[bool, typer.Option("--node", help="The EC2 handler answers.")] = False,
    count: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=MOST_PINGS, help="Connections, one after the other."),
    ] = None,
    until_direct: Annotated[
        bool,
        typer.Option("--until-direct", help=f"Stop at the first that is direct ({UNTIL} at most)."),
    ] = False,
    function: Function = Config.function,
    ec2: Ec2 = EC2_HANDLER,
    local: Local = False,
    json: Json = False,
) -> None:
    """Connects to a worker, or to another `punch ping KEY`, as a stream would, and measures it.

    A line for each connection: its route, the time of each phase, round trip, throughput. Exits
    with 0 when one was direct, 1 when all that came about went over S3, 2 when none did.
    """
    if (key is not None) + worker + node != 1:
        raise UsageError(
            "punch ping wants one peer: a KEY, --worker or --node",
            next_step="punch ping --worker; or punch ping KEY here and on another machine",
        )
    if local and key is not None:
        raise UsageError("--local has no other machine", next_step="punch ping --local --worker")
    most = count or (UNTIL if until_direct else 1)
    attempts: list[Attempt] = []

    def tell(attempt: Attempt) -> None:
        attempts.append(attempt)
        if not json:
            show(attempt)

    def wants(number: int, route: str) -> bool:
        return number < most and not (until_direct and route in (Route.HOST, Route.PUNCHED))

    import asyncio

    theirs: dict[str, Any] | None = None
    problem: PunchError | None = None
    with interruptible():
        try:
            if key is not None:
                asyncio.run(_pair(check_text(key, "the key"), Config.from_env(), wants, tell))
            else:
                with _launcher(node, function, ec2, local=local) as launcher:
                    theirs = _called(launcher, most, wants, tell)
        except PunchError as error:
            if not json:
                output.error(error)
            problem = error
    status = _status(attempts)
    if json:
        output.data(_report(attempts, theirs, problem))
    if isinstance(problem, UsageError):
        status = problem.exit_code
    raise typer.Exit(status)


def _status(attempts: list[Attempt]) -> int:
    if any(a.direct for a in attempts):
        return DIRECT
    return BY_S3 if any(a.route for a in attempts) else NOTHING


def _report(
    attempts: list[Attempt], theirs: dict[str, Any] | None, problem: PunchError | None
) -> dict[str, Any]:
    out: dict[str, Any] = {
        "v": VERSION,
        "ok": _status(attempts) == DIRECT,
        "version": punchlib.__version__,
        "attempts": [a.to_json() for a in attempts],
    }
    if theirs is not None:
        out["peer"] = {name: theirs[name] for name in ("version", "attempts") if name in theirs}
    if problem is not None:
        out["error"] = {"message": problem.message, "next_step": problem.next_step}
    return out


@contextlib.contextmanager
def _launcher(node: bool, function: str, ec2: str, *, local: bool) -> Iterator[Probed]:
    if local:
        with local_cloud() as launchers:
            yield launchers["ec2" if node else "lambda"]
    elif node:
        yield Ec2Launcher(ec2, take_token())
    else:
        yield LambdaLauncher(function, Config.from_env(), 1)


def _called(
    launcher: Probed,
    most: int,
    wants: Callable[[int, str], bool],
    tell: Callable[[Attempt], None],
) -> dict[str, Any]:
    """Has the worker called while we connect to it; its half of what was seen.

    Raises:
        PunchError: it could not be called; then nobody comes, and nobody is waited for.
    """
    import asyncio

    from punchlib.doctor.ping import Pinger
    from punchlib.node import probe as probes

    key, run = f"ping-{secrets.token_hex(8)}", f"ping-{secrets.token_hex(8)}"
    probe = Probe("ping", key, run, secrets.token_hex(32), most)
    config = replace(Config.from_env(), job_id=run, job_key=bytes.fromhex(probe.job_key))

    async def connect(called: Future[dict[str, Any]]) -> None:
        pinging = asyncio.ensure_future(Pinger(key, True, config, wants, tell).run())
        answering = asyncio.wrap_future(called)
        both: list[asyncio.Future[Any]] = [pinging, answering]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not pinging.done() and answering.exception() is not None:
            pinging.cancel()
            await asyncio.wait([pinging])
            return
        await pinging

    called = probes.aside(lambda: launcher.probe(probe))
    asyncio.run(connect(called))
    try:
        return probes.read(called.result(LAST_WORDS))
    except TimeoutError:
        raise PunchError(
            f"the worker gave no answer within {LAST_WORDS:.0f} s after the last attempt",
            next_step="look into its log",
        ) from None


async def _pair(
    key: str,
    config: Config,
    wants: Callable[[int, str], bool],
    tell: Callable[[Attempt], None],
) -> None:
    from punchlib import wiring
    from punchlib.doctor.pairing import Pairing
    from punchlib.doctor.ping import Pinger
    from punchlib.rendezvous.dynamodb import DynamoDbStore

    store = DynamoDbStore(
        lambda: wiring.dynamodb_client(config), table=config.table, patience=config.timeout
    )
    output.console.print(f"waiting for another `punch ping {safe(key)}`", markup=False)
    async with Pairing(store, key, config.timeout) as pairing:
        pair = await pairing.meet()
        await Pinger(pair.key, pair.first, config, wants, tell).run()


def show(attempt: Attempt) -> None:
    """One line on stdout; what went wrong, and the next step, on stderr."""
    phases = ", ".join(f"{name} {ms:.0f}" for name, ms in attempt.phases.items())
    route = attempt.route or "nothing"
    where = f" {attempt.local} → {attempt.remote}" if attempt.direct else ""
    line = f"{attempt.number:<3} {route:8}{where}  {phases or 'no phase ended'} ms"
    if attempt.rtt_ms:
        line += (
            f"  RTT {attempt.rtt_ms:.2f} ms (median {attempt.rtt_median_ms:.2f})"
            f"  {attempt.bytes_per_s / 1e6:.1f} MB/s"
        )
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    if attempt.error:
        output.error(PunchError(attempt.error, next_step=attempt.next_step))
