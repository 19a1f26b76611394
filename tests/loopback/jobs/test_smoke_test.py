"""The end of `punch deploy`: the example job against a function."""

from __future__ import annotations

import pytest

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.errors import JobFailed, PunchError
from punchlib.jobs import smoke_test
from punchlib.jobs.events import EventSink
from punchlib.jobs.launch import LambdaLauncher
from punchlib.local.cloud import LocalCloud
from punchlib.node.protocol import Event, Result


def objects() -> list[str]:
    config = Config.from_env()
    found = client("s3", config).list_objects_v2(Bucket=config.bucket)
    return [item["Key"] for item in found.get("Contents", [])]


def test_the_example_runs_wholly_on_lambda_and_leaves_nothing(cloud: LocalCloud) -> None:
    events = EventSink(print)
    smoke_test.run(cloud.launchers["lambda"], Config.from_env(), events, lines=500)
    assert objects() == []


@pytest.mark.usefixtures("cloud")
def test_a_function_that_is_not_there_is_named() -> None:
    config = Config.from_env()
    with pytest.raises(PunchError, match="not-there"):
        smoke_test.run(LambdaLauncher("not-there", config, 4), config, EventSink(print), lines=10)
    assert objects() == []


class Wrong:
    """The local function, whose merger runs another script: a result that is whole and wrong."""

    def __init__(self, launcher: object) -> None:
        self._launcher = launcher

    def run(self, event: Event) -> Result:
        if event.tasks[0].id == "merger":
            config, task = Config.from_env(), event.tasks[0]
            s3, key = client("s3", config), f"sls-scripts/{task.folder_id}/merger.sh"
            text = s3.get_object(Bucket=config.bucket, Key=key)["Body"].read()
            s3.put_object(Bucket=config.bucket, Key=key, Body=text.replace(b"sort -m", b"cat"))
        return self._launcher.run(event)  # type: ignore[attr-defined, no-any-return]

    def stop(self) -> None:
        pass


def test_a_result_that_is_not_sorted_is_seen(cloud: LocalCloud) -> None:
    with pytest.raises(JobFailed, match="not what sort gives"):
        function = Wrong(cloud.launchers["lambda"])
        smoke_test.run(function, Config.from_env(), EventSink(print), lines=500)
