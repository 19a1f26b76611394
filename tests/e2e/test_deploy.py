"""`punch deploy` with an image that Docker has: pushed into a registry, once, and taken away again.

The registry is the local AWS API's own; its tags are immutable, as ECR's are.
"""

from __future__ import annotations

import io
import json
import tarfile
import uuid
from collections.abc import Iterator

import pytest

from punchlib.aws import deploy as deployment
from punchlib.aws.deploy import Desk, Wish, deploy
from punchlib.aws.destroy import destroy
from punchlib.aws.images import KEPT, Repositories
from punchlib.config import Config
from services import build
from tests.support import strict_stacks
from tests.support.ministack import MiniStack
from tests.support.strict_stacks import Cloud

pytestmark = pytest.mark.e2e


@pytest.fixture
def strict(ministack: MiniStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    for name, value in ministack.env.items():
        monkeypatch.setenv(name, value)
    with strict_stacks.serve(ministack) as (url, cloud):
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDFORMATION", url)
        yield cloud


def make_image(name: str, content: bytes) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("content")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    client = build.connect()
    repository, _, tag = name.partition(":")
    client.api.import_image_from_data(out.getvalue(), repository=repository, tag=tag)
    client.close()


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A small one in the place of the real one."""
    name = f"punch-tiny-{uuid.uuid4().hex[:8]}:local"
    make_image(name, b"first")
    monkeypatch.setitem(deployment.LOCAL_IMAGES, "ImageUri", name)
    yield name
    client = build.connect()
    client.images.remove(name)
    client.close()


def test_pushed_once_kept_while_deployed_and_gone_in_the_end(
    strict: Cloud, ministack: MiniStack, image: str
) -> None:
    stack = f"e{uuid.uuid4().hex[:8]}"
    desk = Desk(print, lambda lines: bool(lines))
    wish = Wish(
        bucket=f"{stack}-bucket", function=f"{stack}-f", table=f"{stack}-t", stack=stack,
        registry=f"127.0.0.1:{ministack.port}",
    )  # fmt: skip
    config = Config.from_env()
    repositories = Repositories(config)

    deploy(wish, desk, config)
    (first,) = repositories.digests(f"{stack}-lambda")
    deploy(wish, desk, config)  # the same digest again, into immutable tags
    assert repositories.digests(f"{stack}-lambda") == [first]
    function = ministack.client("lambda").get_function(FunctionName=f"{stack}-f")
    assert function["Code"]["ImageUri"].endswith(f"/{stack}-lambda@{first}")

    # One deployed for long outlives all that were pushed after it.
    ecr = ministack.client("ecr")
    for number in range(KEPT + 3):
        ecr.put_image(
            repositoryName=f"{stack}-lambda", imageManifest=json.dumps({"n": number}),
            imageTag=f"later-{number}",
        )  # fmt: skip
    repositories.forget_old(f"x/{stack}-lambda@{first}")
    left = repositories.digests(f"{stack}-lambda")
    assert first in left and len(left) <= KEPT + 1

    make_image(image, b"second")
    deploy(wish, desk, config)
    function = ministack.client("lambda").get_function(FunctionName=f"{stack}-f")
    assert not function["Code"]["ImageUri"].endswith(first)

    assert len(destroy(stack, desk, config)) == 2
    assert repositories.digests(f"{stack}-lambda") == []
    assert repositories.uri(f"{stack}-lambda") is None
    destroy(stack, desk, config, purge=True)
