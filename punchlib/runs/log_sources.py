"""Where nodes' logs are while they run: files at home, CloudWatch on AWS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

#: Seconds between two looks into logs at home, and into CloudWatch, which is asked for money.
HOME_PAUSE, CLOUDWATCH_PAUSE = 0.5, 3.0
#: Bytes of a look into one file.
_MOST = 4 << 20
#: Log streams of one question (FilterLogEvents).
_STREAMS = 100


class Line(NamedTuple):
    """A line of a log.

    Attributes:
        text: without its end.
        at: when it was written, in seconds since 1970; None where the log does not say.
    """

    text: str
    at: float | None = None


class Logs(Protocol):
    """Where nodes' logs are.

    Attributes:
        pause: seconds between two looks.
    """

    pause: float

    def read(self) -> list[Line]:
        """The lines that have come since the last look."""
        ...


class LogFiles:
    """The logs of the local cloud: files that come and go.

    Args:
        root: the folder below which they are.
        patterns: which of its files they are.
    """

    pause = HOME_PAUSE

    def __init__(self, root: Path, patterns: tuple[str, ...]) -> None:
        self._root = root
        self._patterns = patterns
        self._read: dict[Path, int] = {}

    def read(self) -> list[Line]:
        lines: list[Line] = []
        for pattern in self._patterns:
            for path in self._root.glob(pattern):
                lines += self._new(path)
        return lines

    def _new(self, path: Path) -> list[Line]:
        at = self._read.get(path, 0)
        try:
            with path.open("rb") as file:
                file.seek(at)
                data = file.read(_MOST)
        except OSError:
            return []  # its node has just ended
        whole = data[: data.rfind(b"\n") + 1]
        self._read[path] = at + len(whole)
        return [Line(text) for text in whole.decode(errors="replace").splitlines()]


class CloudWatchLogs:
    """The function's log group on AWS.

    A worker has a log stream of its own and runs one script at a time. Which workers a job has,
    those lines tell that name it; then all lines of these streams are the job's.

    Args:
        make: makes a CloudWatch Logs client, when it is first wanted.
        group: the log group.
        job: the job's id.
        began, ended: when the run began and ended, in seconds since 1970; None: it goes on.
        wanted: does anybody look?
    """

    pause = CLOUDWATCH_PAUSE

    def __init__(
        self,
        make: Callable[[], Any],
        group: str,
        job: str,
        began: float,
        ended: float | None = None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._make = make
        self._logs: Any = None
        self._group = group
        self._pattern = f'"{job}"'
        self._times = {"startTime": int(began * 1000)}
        if ended is not None:
            self._times["endTime"] = int(ended * 1000) + 1000
        self._wanted = wanted
        self._streams: dict[str, None] = {}
        self._seen: set[str] = set()
        self._refused = False

    def read(self) -> list[Line]:
        """As `Logs.read`; that it is refused is said once, as a line."""
        from botocore.exceptions import BotoCoreError, ClientError

        lines: list[Line] = []
        if not self._wanted():
            return lines
        try:
            self._logs = self._logs or self._make()
            for event in self._events(filterPattern=self._pattern):
                self._streams[str(event["logStreamName"])] = None
            streams = list(self._streams)
            for start in range(0, len(streams), _STREAMS):
                for event in self._events(logStreamNames=streams[start : start + _STREAMS]):
                    if event["eventId"] not in self._seen:
                        self._seen.add(event["eventId"])
                        text = str(event["message"]).rstrip("\n")
                        lines.append(Line(text, event["timestamp"] / 1000))
        except (BotoCoreError, ClientError) as error:
            if not self._refused:
                lines.append(Line(f"the logs of the workers cannot be read: {error}"))
                self._refused = True
        return lines

    def _events(self, **which: Any) -> Iterator[dict[str, Any]]:
        request = {"logGroupName": self._group, **self._times, **which}
        while True:
            answer = self._logs.filter_log_events(**request)
            yield from answer.get("events", ())
            if not (token := answer.get("nextToken")):
                return
            request["nextToken"] = token
