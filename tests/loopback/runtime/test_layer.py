"""The layer for zip functions: what is in the zip, AWS's limits, and `punch deploy --layer`.

That a job runs with it, in workers that have nothing else of ours: tests/e2e/test_layer.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path

import pytest

from punchlib.aws import layers
from punchlib.config import Config
from punchlib.errors import PunchError, UsageError
from punchlib.runtime import layer
from punchlib.runtime.layer import Layer
from tests.loopback.runtime.test_layout import AWS, RUNTIME
from tests.support.ministack import MiniStack

VERSION = "3.12"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Layer:
    """For a processor that this machine does not have."""
    other = "x86_64" if layer.this_architecture() == "arm64" else "arm64"
    return layer.make(tmp_path_factory.mktemp("layer") / "layer.zip", VERSION, other)


@pytest.fixture
def api(ministack: MiniStack, monkeypatch: pytest.MonkeyPatch) -> MiniStack:
    for name, value in ministack.env.items():
        monkeypatch.setenv(name, value)
    return ministack


def test_everything_is_there_for_its_python_and_its_processor(made: Layer) -> None:
    with zipfile.ZipFile(made.file) as archive:
        names = archive.namelist()
        modes = {i.filename: i.external_attr >> 16 & 0o777 for i in archive.infolist()}
        heads = {n: archive.read(n)[:20] for n in names if n.endswith(".so")}
        pashlib = archive.read("pashlib").decode()
        reader = archive.read("aws/s3-get-object.py").decode()
    tools = {f"runtime/{n}" for n in RUNTIME - {"lib"}} | {f"aws/{n}" for n in AWS}
    launchers = tools | {"pashlib", "bin/python3.9"}
    assert launchers <= set(names)
    assert all(modes[n] == 0o755 for n in launchers)
    assert pashlib.startswith(f"#!/var/lang/bin/python{VERSION} -IS\n")
    assert "'/opt/python'" in pashlib and "(3, 12)" in reader
    assert {"python/punch_layer.py", "python/punchlib/node/lambda_handler.py"} <= set(names)
    assert not [n for n in names if n.startswith(("python/rich/", "python/docker/"))]
    # ELF's machine: 183 is AArch64, 62 is x86-64.
    machine = {"arm64": 183, "x86_64": 62}[made.architecture]
    assert heads and {int.from_bytes(h[18:20], "little") for h in heads.values()} == {machine}
    tagged = [re.search(r"cpython-(\d+)", n) for n in heads]
    assert {t[1] for t in tagged if t} == {"312"}


def test_it_keeps_to_the_limits_and_says_so_otherwise(
    made: Layer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert 10e6 < made.zipped < layer.MOST_ZIPPED
    # The function's own code counts as well.
    assert made.zipped < made.unzipped < layer.MOST_UNZIPPED / 2
    monkeypatch.setattr(layer, "MOST_UNZIPPED", made.unzipped - 1)
    monkeypatch.setattr(layer, "_install", lambda *_: None)
    with zipfile.ZipFile(made.file) as archive:
        monkeypatch.setattr(layer, "_lay_out", lambda root, _: archive.extractall(root))
        with pytest.raises(PunchError, match="bytes unzipped; Lambda takes"):
            layer.make(tmp_path / "layer.zip", VERSION, made.architecture)


@pytest.mark.parametrize(
    ("python", "architecture", "why"),
    [("3.9", "x86_64", "too old"), ("3.11", "arm64", "too old"), ("3.12", "riscv64", "riscv64")],
)
def test_what_lambda_has_not(python: str, architecture: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=why):
        layer.make(tmp_path / "layer.zip", python, architecture)


def test_the_same_bytes_are_published_once(made: Layer, api: MiniStack) -> None:
    name, config = f"punch-{uuid.uuid4().hex[:8]}", Config.from_env()
    content = made.file.read_bytes()
    assert layers.published(name, content, config) is None
    arn = layers.publish(name, content, VERSION, made.architecture, config)
    assert arn.endswith(f":{name}:1")
    assert layers.published(name, content, config) == arn
    assert layers.published(name, content + b" ", config) is None
    there = api.client("lambda").get_layer_version_by_arn(Arn=arn)
    assert there["CompatibleRuntimes"] == [f"python{VERSION}"]
    assert there["CompatibleArchitectures"] == [made.architecture]


def test_the_command(api: MiniStack, tmp_path: Path) -> None:
    """It asks before it publishes; again, there is nothing to publish."""
    name = f"punch-{uuid.uuid4().hex[:8]}"
    command = [sys.executable, "-m", "punchlib.cli.main", "deploy", "--layer", "--stack", name]

    def punch(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *options], cwd=tmp_path, env=dict(os.environ), capture_output=True,
            text=True, stdin=subprocess.DEVNULL, timeout=300,
        )  # fmt: skip

    alone = punch()
    assert alone.returncode == 2 and "--yes" in alone.stderr
    assert "MB unzipped of 262" in alone.stderr
    (file,) = tmp_path.glob("*.zip")
    assert file.name == f"punch-layer-python{VERSION}-{layer.this_architecture()}.zip"
    done = punch("--yes")
    assert done.returncode == 0, done.stderr
    arn = f"arn:aws:lambda:us-east-1:000000000000:layer:{name}:1"
    assert f"--layers {arn} --handler punch_layer.handler" in done.stdout
    again = json.loads(punch("--yes", "--json").stdout)
    assert again["layer"] == arn and again["zipped"] == file.stat().st_size
