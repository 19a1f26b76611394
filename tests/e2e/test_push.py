"""`punchlib.aws.images push` against a real registry (Debian's docker-registry) on loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchlib.aws import images
from punchlib.errors import PunchError, UsageError
from services import build
from tests.support.ministack import free_port

pytestmark = pytest.mark.e2e

IMAGE = build.tag("router")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = shutil.which("docker-registry")
    assert program, "docker-registry is not installed (Debian: apt-get install docker-registry)"
    folder: Path = tmp_path_factory.mktemp("registry")
    address = f"127.0.0.1:{free_port()}"
    (folder / "config.yml").write_text(
        f'version: 0.1\nstorage: {{filesystem: {{rootdirectory: "{folder}"}}}}\n'
        f'http: {{addr: "{address}"}}\nlog: {{accesslog: {{disabled: true}}}}\n'
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(f"http://{address}/v2/").close()
                break
            except OSError:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
        build.make(["router"])
        yield address
    finally:
        process.terminate()
        process.wait()


def test_an_image_is_pushed_under_its_digest_and_can_be_pulled_by_it(registry: str) -> None:
    (pushed,) = images.push(registry, [IMAGE])

    client = build.connect()
    digest = str(client.images.get(IMAGE).id).removeprefix("sha256:")
    assert pushed.tag == f"{registry}/punch-router:{digest[:16]}"
    assert pushed.reference.startswith(f"{registry}/punch-router@sha256:")
    with urllib.request.urlopen(f"http://{registry}/v2/punch-router/tags/list") as answer:
        assert json.load(answer)["tags"] == [digest[:16]]
    assert client.images.pull(pushed.reference).id == client.images.get(IMAGE).id
    assert pushed.tag not in client.images.get(IMAGE).tags  # only what was there stays
    client.images.remove(pushed.reference)
    client.close()


def test_pushing_again_says_the_same(registry: str) -> None:
    assert images.push(registry, [IMAGE]) == images.push(f"{registry}/", [IMAGE])


def test_an_image_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="punch-nothing:local"):
        images.push("127.0.0.1:1", ["punch-nothing:local"])


@pytest.mark.parametrize("name", ["http://127.0.0.1:5000", "", "a b", "host/UPPER"])
def test_what_is_no_registry_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a registry"):
        images.push(name, [IMAGE])


def test_a_registry_that_does_not_answer_is_named(registry: str) -> None:
    dead = f"127.0.0.1:{free_port()}"
    with pytest.raises(PunchError, match=dead):
        images.push(dead, [IMAGE])
