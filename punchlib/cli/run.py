"""`punch run`: runs a job, on AWS or on this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from punchlib.aws.clients import client
from punchlib.cli import output
from punchlib.cli.interrupt import Interrupted, interruptible
from punchlib.cli.options import (
    EC2_HANDLER,
    Ec2,
    Function,
    Local,
    Retries,
    Timeout,
    pairs,
)
from punchlib.config import Config, Route
from punchlib.errors import PunchError, UsageError
from punchlib.jobs import capacity, checks, manifest, report, result_stream, storage, warming
from punchlib.jobs.attempts import Attempts, Keeping
from punchlib.jobs.events import EventSink
from punchlib.jobs.launch import Ec2Launcher, LambdaLauncher, Launcher
from punchlib.jobs.manifest import Job
from punchlib.jobs.placement import Place
from punchlib.jobs.runner import JobRunner, RunRequest
from punchlib.local import isolation
from punchlib.node.protocol import check_knobs
from punchlib.runs import cost, run_folder
from punchlib.runs.live import Follower
from punchlib.runs.log_sources import CloudWatchLogs, LogFiles, Logs
from punchlib.runs.run_folder import RunFolder
from punchlib.runs.timeline import Moment
from punchlib.runtime.handler_call import take_token


def run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the scripts ID.sh.")],
    local: Local = False,
    put: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=FILE", help="Put FILE into the bucket first. Repeatable."),
    ] = None,
    get: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=FILE", help="Fetch the result into FILE (- is stdout). Repeatable."
        ),
    ] = None,
    result: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where a job's [result] goes; otherwise to stdout."),
    ] = None,
    retries: Retries = 1,
    prewarm: Annotated[
        bool, typer.Option("--prewarm", help="Start all workers before the job (punch warm).")
    ] = False,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A PUNCH_… knob for all nodes. Repeatable."),
    ] = None,
    route: Annotated[
        list[Route] | None,
        typer.Option(help="The only way that connections may take. Repeatable."),
    ] = None,
    timeout: Timeout = None,
    follow_logs: Annotated[
        bool, typer.Option("--follow-logs", help="Show what the nodes write while they run.")
    ] = False,
    events_too: Annotated[
        bool, typer.Option("--events", help="Each event as a line of JSON on stdout.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout, errors too.")
    ] = False,
    function: Function = Config.function,
    ec2: Ec2 = EC2_HANDLER,
) -> None:
    """Runs all scripts of a folder at once and says whether the job went well.

    KEY=FILE is split at the last "=". Without --local the job runs on AWS as the environment
    configures it (AWS_BUCKET, AWS_REGION, AWS_ENDPOINT_URL, credentials).
    """
    running: Running | None = None
    try:
        with interruptible():
            job = manifest.load(folder)
            request = RunRequest(
                pairs("--put", put),
                pairs("--get", get),
                timeout,
                _knobs(env, route),
                _result(job, result),
            )
            for key, file in request.gets.items():
                if file != storage.STDOUT:
                    storage.check_target(file, f"--get {key}={file}")
            streams = bool(job.result) and request.result == storage.STDOUT
            if sum((json, events_too, streams, storage.STDOUT in request.gets.values())) > 1:
                raise UsageError(
                    "--json, --events, --get KEY=- and a [result] all want stdout",
                    next_step="choose one; --result FILE takes the result",
                )
            how = How(local, retries, prewarm, follow_logs, events_too, json, function, ec2)
            running = Running(job, request, how, str(folder.absolute()))
            running.run()
    except PunchError as error:
        if json:
            output.data(_failed(running, error))
            raise typer.Exit(error.exit_code) from error
        raise
    except Interrupted as stop:
        if json:
            problem = PunchError(f"stopped by {stop.name}")
            problem.exit_code = stop.exit_code
            output.data(_failed(running, problem))
            raise typer.Exit(stop.exit_code) from stop
        raise
    if json and running.attempts and running.attempts.runner:
        output.data(running.attempts.runner.report.to_json())
    running.leave()


def _result(job: Job, result: Path | None) -> Path:
    """Where the job's result goes.

    Raises:
        UsageError: it has none, or the file cannot be there.
    """
    if result is None:
        return storage.STDOUT
    if not job.result:
        raise UsageError(
            f"--result {result}: this job has no [result] in its {manifest.MANIFEST}",
            next_step="--get KEY=FILE fetches what it puts into the bucket",
        )
    if result != storage.STDOUT:
        storage.check_target(result, f"--result {result}")
    return result


@dataclass(frozen=True)
class How:
    """In which way a job is run; the options of `punch run`."""

    local: bool = False
    retries: int = 1
    prewarm: bool = False
    follow_logs: bool = False
    events_too: bool = False
    quiet: bool = False
    function: str = Config.function
    ec2: str = EC2_HANDLER


class Running:
    """Runs a job and shows what happens, for `punch run` and `punch sh`.

    Args:
        job: the scripts.
        request: inputs, outputs, time-out.
        how: where and how.
        name: of the job, under which its runs are kept.

    Attributes:
        attempts: its runs; None before the first.
    """

    def __init__(self, job: Job, request: RunRequest, how: How, name: str) -> None:
        self.attempts: Attempts | None = None
        self._job = job
        self._request = request
        self._how = how
        self._name = name

    def run(self) -> None:
        """Runs it. With `local` the process must have no other threads (`isolation.enter`).

        Raises:
            PunchError: it cannot end well, or did not.
        """
        job, how = self._job, self._how
        facts = {"job": self._name, "local": how.local}
        keeping = Keeping(run_folder.runs_root(), facts, cost.load_prices())
        root = isolation.enter() if how.local else None
        places = {n.id: n.place for n in job.nodes}
        before = partial(run_folder.last_duration, self._name)
        with output.Progress(places, quiet=how.quiet, before=before) as progress:
            events = EventSink(progress)
            checks.check(job, events, local=how.local)
            with _launchers(job, root, how.function, how.ec2, events) as launchers:
                config = bucket_config()
                s3 = client("s3", config)
                storage.check_bucket(s3, config.bucket or "")
                if not how.local:
                    workers = list(places.values()).count("lambda")
                    _check_width(how.function, workers, events, how.prewarm)

                def make(events: EventSink) -> JobRunner:
                    return JobRunner(job, self._request, launchers, s3, config, events)

                watching = _Watching(progress, root, how.function, how.follow_logs, how.events_too)
                self.attempts = Attempts(make, events, how.retries, keeping, watching)
                self.attempts.run()

    def leave(self) -> None:
        """Ends as who writes into a pipe whose reader has gone, where that is what happened."""
        runner = self.attempts and self.attempts.runner
        if runner and any(o.get("reader_gone") for o in runner.report.outputs):
            raise typer.Exit(result_stream.READER_GONE)


def _check_width(function: str, workers: int, events: EventSink, prewarm: bool) -> None:
    """Refuses what can never run at once; starts the workers first where that is wanted."""
    if not workers:
        return
    launcher = LambdaLauncher(function, bucket_config(), workers)
    capacity.check(launcher.client, function, workers)
    if prewarm:
        found = warming.warm(launcher.probe, workers)
        events.tell("warning" if found.lost else "step", found.sentence())


def _failed(running: Running | None, error: PunchError) -> dict[str, object]:
    attempts = running.attempts if running else None
    if attempts is None or attempts.runner is None:
        return {"v": report.VERSION, "ok": False, "error": report.error_json(error)}
    return attempts.runner.report.to_json(error)


def _knobs(texts: list[str] | None, routes: list[Route] | None) -> dict[str, str]:
    knobs: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(
                f"--env {text!r} is not NAME=VALUE", next_step="for instance PUNCH_TIMEOUT=60"
            )
        knobs[name] = value
    if routes:
        knobs["PUNCH_ROUTES"] = ",".join(routes)
    return check_knobs(knobs, "--env")


def bucket_config() -> Config:
    """The environment, which must name a bucket.

    Raises:
        UsageError: it does not.
    """
    config = Config.from_env()
    if not config.bucket:
        raise UsageError(
            "AWS_BUCKET is not set: there is no bucket for the scripts and the data",
            next_step="export AWS_BUCKET=NAME, or run on this machine with --local",
        )
    return config


@dataclass(frozen=True)
class _Watching:
    """Shows and keeps what a run's nodes do while it runs, and asks them when somebody asks us."""

    progress: output.Progress
    root: Path | None
    function: str
    follow_logs: bool
    events_too: bool

    def __call__(
        self, runner: JobRunner, events: EventSink, folder: RunFolder | None
    ) -> AbstractContextManager[object]:
        if self.events_too:
            events.record(output.json_lines)
        word = ""

        def take(moment: Moment) -> None:
            self.progress.take(moment)
            if folder:
                folder.record_live(moment)

        def pass_on() -> None:
            nonlocal word
            if folder and (asked := folder.asked()) != word:
                word = asked
                runner.ask(word)

        runner.watch(take)
        say = self.progress.say if self.follow_logs else None
        logs = self._logs(runner.report.job_id, events.began, lambda: bool(word))
        return Follower(logs, events.began, take, say, pass_on)

    def _logs(self, job: str, began: float, asked: Callable[[], bool]) -> Logs:
        """The logs of the nodes; those of EC2 nodes on AWS are on their machines."""
        if self.root is not None:
            return LogFiles(self.root, ("ec2.log", "lambda/*/log"))
        group = f"/aws/lambda/{self.function}"
        wanted = self.follow_logs or self.progress.is_live
        # CloudWatch is asked for money: only for who looks.
        return CloudWatchLogs(_logs_client, group, job, began, wanted=lambda: wanted or asked())


def _logs_client() -> Any:
    return client("logs", bucket_config())


@contextlib.contextmanager
def _launchers(
    job: Job, root: Path | None, function: str, ec2: str, events: EventSink
) -> Iterator[Mapping[Place, Launcher]]:
    if root is None:
        config = bucket_config()
        yield {
            "lambda": LambdaLauncher(function, config, len(job.nodes)),
            "ec2": Ec2Launcher(ec2, take_token()),
        }
        return
    from punchlib.local.cloud import LocalCloud

    events.tell("step", "starting S3, DynamoDB, STUN and the EC2 handler on loopback")
    with LocalCloud(root, verbose=bool(os.environ.get("PUNCH_DEBUG"))) as cloud:
        events.tell("step", "the local services are up")
        yield cloud.launchers
