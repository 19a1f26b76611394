"""`pashlib {send|recv}*KEY*ME*PEER*FIFO …`: one stream for each argument, all at once.

The connections of a process share nothing but the machine: one that fails leaves a failure
marker, shows in the exit code (that of the first failure), and does not touch its siblings.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from functools import partial

import uvloop

from punchlib import wiring
from punchlib.config import Config
from punchlib.core.events import Event
from punchlib.errors import PunchError, UsageError
from punchlib.net import descriptors
from punchlib.net.connection import Spec
from punchlib.net.connector import Connector
from punchlib.net.descriptors import Allowance
from punchlib.pump import ends
from punchlib.pump.fifo import FifoReader, FifoWriter
from punchlib.runtime import connection_events, events, state, verdict_watch
from punchlib.runtime.catalogue import display_name, let_go
from punchlib.runtime.connection_lines import lines_of
from punchlib.stopping import stopped

#: Seconds for which a failed recv waits for its FIFO's reader, to let it go.
RELEASE_TIME = 5.0

FORM = "send*KEY*ME*PEER*FIFO or recv*KEY*ME*PEER*FIFO"


def parse(argument: str) -> tuple[Spec, str]:
    """Reads one connection: what to connect, and the FIFO's path (which may hold * and #).

    Raises:
        UsageError: the argument has another form; it is named.
    """
    parts = argument.split("*", 4)
    problem = ""
    if len(parts) < 5:
        problem = f"it has {len(parts)} of 5 parts"
    elif parts[0] not in ("send", "recv"):
        problem = f"it begins with {parts[0]!r}"
    elif not all(parts):
        problem = "a part is empty"
    elif parts[2] == parts[3]:
        problem = f"ME and PEER are both {parts[2]!r}"
    if problem:
        raise UsageError(f"pashlib: {argument!r}: {problem}", next_step=f"write {FORM}")
    verb, key, me, peer, fifo = parts
    return Spec(key, me, peer, sending=verb == "send"), fifo


def parse_all(arguments: Sequence[str]) -> list[tuple[Spec, str]]:
    """Reads all arguments; nothing starts when one of them is wrong."""
    if not arguments:
        raise UsageError("pashlib: no connection given", next_step=f"write {FORM} …")
    connections = [parse(argument) for argument in arguments]
    seen: set[tuple[str, str]] = set()
    for spec, _ in connections:
        if (spec.key, spec.me) in seen:
            raise UsageError(
                f"pashlib: key {spec.key!r} is given twice for label {spec.me!r}",
                next_step="one stream, one key",
            )
        seen.add((spec.key, spec.me))
    return connections


class Pashlib:
    """All connections of one process."""

    def __init__(self, config: Config, connector: Connector) -> None:
        self.config = config
        self.connector = connector
        self.exit_code = 0

    async def run(self, connections: Sequence[tuple[Spec, str]]) -> int:
        """Runs every connection to its end; the exit code of the first failure, or 0."""
        async with asyncio.TaskGroup() as tasks:  # stopped, it waits for all their goodbyes
            for spec, fifo in connections:
                tasks.create_task(self._guarded(spec, fifo))
        return self.exit_code

    async def _guarded(self, spec: Spec, path: str) -> None:
        try:
            await (self._send if spec.sending else self._receive)(spec, path)
        except PunchError as exc:
            self._fail(exc.exit_code, str(exc), exc)
        except OSError as exc:
            self._fail(1, f"{spec}: {exc}", exc)
        except Exception as exc:
            # Nobody expected it, but its siblings have no part in it.
            self._fail(1, f"{spec}: {type(exc).__name__}: {exc}", exc)

    def _fail(self, code: int, text: str, exc: Exception) -> None:
        self.exit_code = self.exit_code or code
        say(text if text.startswith("pashlib:") else f"pashlib: {text}")
        if self.config.debug:
            traceback.print_exception(exc)

    async def _send(self, spec: Spec, path: str) -> None:
        name = display_name(path)
        connection_events.tell_started(spec, name)
        with marked(spec):
            fifo = FifoReader.open_path(path, name=name)
            let_go(path)
        with contextlib.closing(fifo), marked(spec):
            async with await self.connector.establish(spec) as connection:
                await ends.send(
                    connection,
                    fifo,
                    upstream_failure=partial(verdict_watch.upstream_failure, name),
                    tell=connection_events.teller(spec),
                )

    async def _receive(self, spec: Spec, path: str) -> None:
        connection_events.tell_started(spec, display_name(path))
        with marked(spec):
            fifo = FifoWriter.open_path(path, name=display_name(path))
            let_go(path)
        with contextlib.closing(fifo):
            try:
                with marked(spec):
                    async with await self.connector.establish(spec) as connection:
                        tell = connection_events.teller(spec)
                        stats = await ends.receive(connection, fifo, tell=tell)
                        if stats.note:
                            say(f"pashlib: {spec}: {stats.note}")
            except Exception:
                await release_reader(fifo)
                raise


@contextlib.contextmanager
def marked(spec: Spec) -> Iterator[None]:
    """Leaves a failure marker for whatever goes wrong inside, before any FIFO is closed."""
    try:
        yield
    except asyncio.CancelledError as stop:
        # What had failed before counts, though the signal came while the peer was being told.
        failed = stop.__context__
        if isinstance(failed, PunchError):
            mark(spec, failed)
            reason = failed.message
        else:
            reason = stopped(stop)
            state.mark_failed(f"pashlib {spec}", reason, state.STOPPED)
        say(f"pashlib: {spec}: {reason}")
        raise
    except Exception as exc:
        mark(spec, exc)
        raise


def mark(spec: Spec, exc: Exception) -> None:
    """Leaves the marker of an exception; what another machine said stays as it was said."""
    connection_events.tell_failed(spec, exc)
    component = f"pashlib {spec}"
    if not isinstance(exc, PunchError):
        state.mark_failed(component, f"{type(exc).__name__}: {exc}")
    elif exc.reported_by_peer:
        state.mark_failed(component, exc.cause.reason, state.REPORTED, exc.cause.origin)
    else:
        state.mark_failed(component, exc.message, may_pass=exc.may_pass)


async def release_reader(fifo: FifoWriter) -> None:
    """Lets the FIFO's reader see an end: without a writer its open() would wait for ever."""
    with contextlib.suppress(TimeoutError, PunchError):
        async with asyncio.timeout(RELEASE_TIME):
            await fifo.opened()


def say(line: str) -> None:
    """One line on stderr, whole even where several processes write to it.

    It may have been closed from the start, be on a full disk, or be something to read from (bash
    gives `<( … )` a pipe's other end where the script has closed 2): no stream ends for that.
    """
    if sys.stderr:
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except OSError:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (for the rest of our life)


def report(event: Event) -> None:
    """Says what there is to say of a connection on its way."""
    connection_events.tell_of(event)
    for line in lines_of(event):
        say(line)


def reserve_descriptors(connections: int) -> Allowance:
    """Makes room for the descriptors of so many connections, and says what each may hold.

    Raises:
        UsageError: this process may not have so many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return Allowance()
    allowed = descriptors.allowance(connections, hard)
    if allowed is None:
        needed = descriptors.needed(connections)
        raise UsageError(
            f"pashlib: {connections} connections need {needed} open files, and this process may "
            f"have {hard}",
            next_step=f"give at most {descriptors.most_connections(hard)} connections "
            f"to one pashlib, or raise the limit: ulimit -Hn {needed}",
        )
    return allowed


async def run(connections: Sequence[tuple[Spec, str]], config: Config, allowance: Allowance) -> int:
    """Runs all connections under this process's loop."""
    loop = asyncio.get_running_loop()
    connector = wiring.open_connector(config, report=report, allowance=allowance)
    work = asyncio.ensure_future(Pashlib(config, connector).run(connections))
    signals: list[int] = []

    def stop(number: int) -> None:
        # Once: to stop takes seconds at most, and who stops us may say it twice.
        if not signals:
            work.cancel()
        signals.append(number)

    def orphaned(_: asyncio.Task[None]) -> None:
        if not over.cancelled():
            say("pashlib: its script has ended; nobody would judge what it does")
            stop(signal.SIGHUP)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    over = asyncio.ensure_future(verdict_watch.script_ended())
    over.add_done_callback(orphaned)
    try:
        return await work
    except asyncio.CancelledError:
        if not signals:
            raise
        say(f"pashlib: stopped by {signal.Signals(signals[0]).name}")
        return 128 + signals[0]
    finally:
        over.cancel()
        await connector.close()


def _begin() -> None:
    try:
        state.begin("pashlib")
        state.scope()  # while whoever started us is most likely still there
    except OSError as exc:
        raise UsageError(
            f"pashlib: the state folder cannot be used: {exc}",
            next_step="make room there, or set PUNCH_STATE_DIR to a folder of your own",
        ) from exc


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    try:
        connections = parse_all(sys.argv[1:] if argv is None else argv)
        config = Config.from_env()
        _begin()
        events.tell_stage_started("pashlib")
        allowance = reserve_descriptors(len(connections))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(run(connections, config, allowance))
    except UsageError as exc:
        state.mark_failed("pashlib", exc.message)
        say(str(exc))
        code = exc.exit_code
    state.end("pashlib", code)
    events.tell_stage_ended("pashlib", code)
    return code


if __name__ == "__main__":
    sys.exit(main())
