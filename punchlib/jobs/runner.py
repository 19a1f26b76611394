"""Runs a job: everything that happens between `punch run` and its exit status.

All nodes start together, since they are one pipeline. The outputs are completed only when every
node has ended well; until then they do not exist (docs/architecture.md, "Two-step put").
"""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from punchlib.config import Config
from punchlib.errors import StorageError
from punchlib.jobs import storage
from punchlib.jobs.events import EventSink
from punchlib.jobs.launch import Launcher, NodeLost
from punchlib.jobs.lease import PATIENCE, Lease
from punchlib.jobs.manifest import Job, Node
from punchlib.jobs.placement import Place
from punchlib.jobs.report import Outcome, Report, failure, too_late
from punchlib.jobs.result_stream import ResultStream
from punchlib.net import s3_route
from punchlib.node.protocol import PREFIX, Event, Result, Task
from punchlib.runs import timeline
from punchlib.runs.timeline import Moment
from punchlib.runtime import commit

#: Seconds that the other nodes get to end by themselves once one has failed.
FAILURE_GRACE = 3.0
#: Seconds for nodes that were told to stop to give their results.
STOP_PATIENCE = 10.0
#: Seconds for nodes to notice that the run was given up, and to stop: they look every 3 s.
LAST_WORDS = 8.0
#: Longest run, in seconds, when nobody says otherwise: Lambda's own.
TIMEOUT = 900.0


@dataclass(frozen=True)
class RunRequest:
    """What to do besides running the scripts.

    Attributes:
        puts: object key -> file to upload before the start.
        gets: object key -> file to write after a good end.
        result: where the result goes, of a job that has one as a stream; `storage.STDOUT` or a
            file.
        timeout: seconds; None: the manifest's, else 900.
        env: knobs for the nodes; they win over the manifest's.
    """

    puts: Mapping[str, Path] = field(default_factory=dict)
    gets: Mapping[str, Path] = field(default_factory=dict)
    timeout: float | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    result: Path = storage.STDOUT


class JobRunner:
    """One run of one job.

    Args:
        job: its scripts.
        request: inputs, outputs, time-out.
        launchers: for each place, what starts a node there.
        s3: an S3 client.
        config: the bucket, which must exist.
        events: is told what happens, from this thread and from others.
    """

    def __init__(
        self,
        job: Job,
        request: RunRequest,
        launchers: Mapping[Place, Launcher],
        s3: Any,
        config: Config,
        events: EventSink,
    ) -> None:
        assert config.bucket
        self._job = job
        self._request = request
        self._result = ResultStream(job.result, request.result) if job.result else None
        here: Mapping[Place, Launcher] = {"here": self._result} if self._result else {}
        self._launchers = {**launchers, **here}
        self._s3 = s3
        self._config = config
        self._bucket = config.bucket
        self._events = events
        self._ended: queue.Queue[Outcome] = queue.Queue()
        self._timeout = request.timeout or job.timeout or TIMEOUT
        self._given_up = threading.Event()
        self._started = False
        self._committed = False
        # Runs of one job at the same time must not meet: not epoch seconds.
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
        self.report = Report(job_id=name, folder_id=name)
        self._lease = Lease(s3, config.bucket, name)

    def ask(self, word: str) -> None:
        """Asks the nodes to tell in their logs what they do right now (`Lease.ask`)."""
        self._lease.ask(word)

    def watch(self, take: Callable[[Moment], None]) -> None:
        """Has the events of the node `here` told as they happen; those of others are in logs."""

        def told(event: Mapping[str, Any]) -> None:
            for moment in timeline.moments([event], self._events.began, 0.0):
                take(moment)

        if self._result:
            self._result.watch = told

    def run(self) -> Report:
        """Runs the job.

        Returns:
            The report of a job that went well; `self.report` holds it in any case.

        Raises:
            JobFailed: a node failed, or the time is up; names the first cause.
            StorageError: the bucket refused.
        """
        try:
            self._upload()
            self._start()
            self._collect()
            self._finish()
        finally:
            if self._started and self._missing():
                self._give_up()
            if not self._committed:
                self._abort()
            if self._result:
                self._result.drop()
            self._sweep()
            self.report.elapsed = self._events.elapsed()
        return self.report

    def _upload(self) -> None:
        for key, file in self._request.puts.items():
            tell = partial(self._events.tell, "step")
            size = storage.upload(self._s3, self._bucket, key, file, tell)
            self._events.tell("step", f"put {size:,} bytes from {file} to {key}")
        folder = self.report.folder_id
        scripts = [n for n in self._job.nodes if n.place != "here"]
        with ThreadPoolExecutor(8) as pool:
            leased = pool.submit(self._lease.start)
            list(
                pool.map(
                    lambda n: storage.upload_script(self._s3, self._bucket, folder, n.id, n.raw),
                    scripts,
                )
            )
            leased.result()
        self._events.tell("step", f"uploaded {len(scripts)} scripts to folder {folder}")

    def _start(self) -> None:
        job_key = secrets.token_hex(32)
        env = {**self._job.env, **self._request.env}
        self._started = True
        for node in self._job.nodes:
            event = Event(
                (Task(node.id, self.report.folder_id, node.args),),
                self.report.job_id,
                job_key,
                commit="runner",
                timeout=self._timeout + STOP_PATIENCE,
                lease=PATIENCE,
                env=env,
            )
            # Daemons: an invocation cannot be taken back, and must not hold up our own end.
            threading.Thread(
                target=self._run_node, args=(node, event), name=f"node {node.id}", daemon=True
            ).start()
        places = [n.place for n in self._job.nodes]
        self._events.tell(
            "step", f"started {places.count('ec2')} EC2 and {places.count('lambda')} Lambda nodes"
        )

    def _run_node(self, node: Node, event: Event) -> None:
        started = self._events.elapsed()
        sent = time.time()
        starts = "waits for the result" if node.place == "here" else f"starts on {node.place}"
        self._events.tell("node-started", starts, node.id, place=node.place)

        def ended(**facts: Any) -> None:
            stopped = self._given_up.is_set()
            now = self._events.elapsed()
            self._ended.put(Outcome(node.id, node.place, started, now, stopped=stopped, **facts))

        try:
            result = self._launchers[node.place].run(event)
            self._keep(result, sent, time.time())
            ended(script=result.scripts[0], cold=result.cold)
        except NodeLost as lost:
            ended(error=lost.message, log_tail=lost.log_tail, lost_may_pass=lost.may_pass)
        except Exception as bug:
            ended(error=f"a bug in punch: {bug!r}")
            raise

    def _keep(self, result: Result, sent: float, got: float) -> None:
        """The node's events, by our clock."""
        began = self._events.began
        ahead = timeline.ahead(result.clock, sent, got)
        self._events.add(timeline.moments(result.events, began, ahead))

    def _collect(self) -> None:
        """Waits for all nodes; gives up soon after a failure, and when the time is up.

        Raises:
            JobFailed: a node failed, or the time is up.
        """
        timeout = self._timeout
        deadline = time.monotonic() + timeout
        failing = False
        while len(self.report.outcomes) < len(self._job.nodes):
            if not self._wait_for_one(deadline):
                break
            if not failing and not self.report.outcomes[-1].ok:
                failing = True
                deadline = min(deadline, time.monotonic() + FAILURE_GRACE)
        missing = self._missing()
        if missing:
            why = "a node failed" if failing else f"{timeout:g} s are over"
            self._events.tell("step", f"{why}: stopping {', '.join(missing)}")
            self._give_up(0.0 if failing else LAST_WORDS)
        if failing or missing:
            problem = failure(self.report) if failing else too_late(self.report, missing, timeout)
            if self._result and self._result.spent:
                problem.may_pass = False  # the same bytes would come twice
            raise problem

    def _wait_for_one(self, deadline: float) -> bool:
        """Takes one outcome; False when the deadline came first."""
        try:
            outcome = self._ended.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return False
        self.report.outcomes.append(outcome)
        took = outcome.ended - outcome.started
        if outcome.ok:
            self._events.tell("node-ended", f"ended well after {took:.2f} s", outcome.id)
        elif outcome.stopped:
            self._events.tell("node-ended", f"stopped after {took:.2f} s", outcome.id)
        else:
            self._events.tell("node-failed", outcome.cause, outcome.id)
        return True

    def _missing(self) -> list[str]:
        ended = {o.id for o in self.report.outcomes}
        return [n.id for n in self._job.nodes if n.id not in ended]

    def _finish(self) -> None:
        uploads = self._uploads()
        whole = [upload for upload in uploads if upload["parts"] is not None]
        ended = {upload["upload_id"] for upload in whole}
        for upload in uploads:
            if upload["upload_id"] not in ended:
                raise StorageError(
                    f"the upload to {upload['key']} began, and no script says how it ended",
                    next_step="let the script wait for its put",
                )
        commit.complete(whole, self._s3)
        self._committed = True
        for upload in whole:
            self._events.tell("step", f"completed {upload['key']}")
        if self._result:
            self.report.outputs.append(self._result.keep())
            self._events.tell("step", f"the result has {self._result.size:,} bytes")
        for key, file in self._request.gets.items():
            tell = partial(self._events.tell, "step")
            size = storage.download(self._s3, self._bucket, key, file, tell)
            self.report.outputs.append({"key": key, "file": str(file), "bytes": size})
            self._events.tell("step", f"got {size:,} bytes from {key} into {file}")

    def _give_up(self, last_words: float = 0.0) -> None:
        """Tells the nodes that still run to stop, and waits a while for their results.

        Args:
            last_words: seconds for nodes to find out by themselves. Those give a result, which
                says what they were doing; a launcher's own way ends them at once.
        """
        self._given_up.set()
        self._sweep()
        self._wait_for_all(last_words)
        for launcher in self._launchers.values():
            launcher.stop()
        self._wait_for_all(STOP_PATIENCE)

    def _wait_for_all(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._missing() and self._wait_for_one(deadline):
            pass

    def _abort(self) -> None:
        """Nothing of a failed run may become an object."""
        uploads = self._uploads()
        if uploads:
            commit.abort(uploads, self._s3)
            self._events.tell("step", f"aborted {len(uploads)} uploads: no output was written")

    def _sweep(self) -> None:
        """Deletes what the run left in the bucket. Nodes that still run take it as a sign."""
        self._lease.stop()
        for prefix in (
            f"{PREFIX}/{self.report.folder_id}/",
            # Streams that took the S3 route and were killed.
            f"{s3_route.PREFIX}{self.report.job_id}/",
        ):
            storage.delete_prefix(self._s3, self._bucket, prefix)

    def _uploads(self) -> list[dict[str, Any]]:
        return [u for o in self.report.outcomes if o.script for u in o.script.pending]
