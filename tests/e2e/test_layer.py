"""`punch deploy --layer`: the example job, on zip functions that have nothing but the layer.

AWS's own images cannot be had here. So the zip lies unpacked at /opt, in containers of our base
image (Python 3.13, none of our packages), under AWS's runtime interface emulator and client, with
the paths and the variables of AWS's Python runtimes.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from punchlib.config import Config
from punchlib.jobs import smoke_test
from punchlib.jobs.events import EventSink
from punchlib.jobs.launch import NodeLost, read_answer
from punchlib.node.protocol import Event, Result
from punchlib.runtime import layer
from services import build
from services.emulation import LAMBDA_NETWORK
from tests.e2e.cloud import Cloud

pytestmark = pytest.mark.e2e

VERSION = build.PYTHON
PATH = "/2015-03-31/functions/function/invocations"
#: What is AWS's own on a worker: the client of its runtime interface, and nothing else of ours.
RUNTIME = ("awslambdaric", "runtime_client*", "simplejson", "snapshot_restore_py")
START = f"""
ln -s "$(command -v python{VERSION})" /var/lang/bin/python{VERSION}
exec /var/rapid/aws-lambda-rie /var/lang/bin/python{VERSION} -m awslambdaric {layer.HANDLER}
"""


class ZipFunction:
    """A launcher: each event in a worker of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._client = build.connect()
        self._environment = environment
        binds = {
            "opt": "/opt",
            "runtime": "/var/runtime",
            "rapid": "/var/rapid",
            "task": "/var/task",
        }
        self._volumes = {
            str(folder / name): {"bind": path, "mode": "ro"} for name, path in binds.items()
        }

    def run(self, event: Event) -> Result:
        worker = self._client.containers.run(
            "punch-base-node:local",
            ["/bin/sh", "-c", START],
            detach=True,
            environment=self._environment,
            init=True,
            mem_limit="1769m",
            network=LAMBDA_NETWORK,
            read_only=True,
            tmpfs={"/tmp": "exec", "/var/lang/bin": "exec"},
            user="993:990",
            volumes=self._volumes,
            working_dir="/var/task",
        )
        try:
            worker.reload()
            address = worker.attrs["NetworkSettings"]["Networks"][LAMBDA_NETWORK]["IPAddress"]
            return read_answer(_invoke(address, event))
        except NodeLost as lost:
            raise NodeLost(f"{lost.message}\n{worker.logs().decode()}") from lost
        finally:
            worker.remove(force=True)

    def stop(self) -> None:
        pass

    def close(self) -> None:
        self._client.close()


def _invoke(address: str, event: Event) -> bytes:
    deadline = time.monotonic() + 30.0
    while True:
        connection = http.client.HTTPConnection(address, 8080, timeout=180)
        with closing(connection):
            try:
                connection.connect()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
                continue
            connection.request("POST", PATH, body=json.dumps(event.to_json()))
            return connection.getresponse().read()


@pytest.fixture
def function(cloud: Cloud, tmp_path: Path) -> Iterator[ZipFunction]:
    made = layer.make(tmp_path / "layer.zip", VERSION, layer.this_architecture())
    with zipfile.ZipFile(made.file) as archive:
        for entry in archive.infolist():
            path = Path(archive.extract(entry, tmp_path / "opt"))
            path.chmod(entry.external_attr >> 16 & 0o777)
    for name in ("runtime", "rapid", "task"):
        (tmp_path / name).mkdir()
    for pattern in RUNTIME:
        for path in (build.BUILD / "site").glob(pattern):
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, tmp_path / "runtime" / path.name)
    shutil.copy(build.BUILD / "aws-lambda-rie", tmp_path / "rapid")
    tmp_path.chmod(0o755)
    plan, env = cloud.emulation.plan, cloud.emulation.environment
    core = plan["PUNCH_CORE"]
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_BUCKET")
    function = ZipFunction(
        tmp_path,
        {key: env[key] for key in keys}
        | {
            "AWS_ENDPOINT_URL": f"http://{core}.10:4566",
            "PASH_STUN_SERVER": f"{core}.30:3478,{core}.31:3478",
            "LAMBDA_TASK_ROOT": "/var/task",
            "AWS_LAMBDA_FUNCTION_NAME": "zip",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": "180",
            "LANG": "en_US.UTF-8",
            "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
            "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/task:/opt/lib",
            "PYTHONPATH": "/var/runtime:/opt/python",
        },
    )
    yield function
    function.close()


def test_the_example_job_on_zip_functions(
    function: ZipFunction, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "PUNCH_", "PASH_")):
            monkeypatch.delenv(name)
    for name, value in cloud.emulation.environment.items():
        monkeypatch.setenv(name, value)
    smoke_test.run(function, Config.from_env(), EventSink(print))
