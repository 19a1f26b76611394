"""Pushes the images to a registry: `python -m punchlib.aws.images push REGISTRY IMAGE…`.

Each image is tagged with its own digest, so that a tag never means two things, and the reference
by digest that the registry answers with is what a deployment takes. For Amazon ECR the login comes
from the AWS credentials (`ecr:GetAuthorizationToken`), and what is there already is not pushed: its
tags are immutable.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from punchlib.aws import errors
from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.errors import PunchError, UsageError

_ECR = re.compile(r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?$")
#: Images of a repository that stay beside the deployed one: the way back to an earlier version.
KEPT = 10
#: A registry: a host with an optional port, then an optional path.
_REGISTRY = re.compile(r"[A-Za-z0-9.-]+(:\d+)?(/[a-z0-9._/-]+)?$")


@dataclass(frozen=True)
class Pushed:
    """An image in its registry.

    Attributes:
        image: the local name that it was pushed from.
        tag: REGISTRY/NAME:DIGEST-OF-THE-IMAGE.
        reference: REGISTRY/NAME@sha256:…, which never changes its meaning.
        size: bytes, uncompressed.
    """

    image: str
    tag: str
    reference: str
    size: int


def push(registry: str, images: list[str], config: Config | None = None) -> list[Pushed]:
    """Tags local images by digest and pushes them.

    Args:
        registry: HOST[:PORT][/PATH]; an ECR registry is logged in to by itself.
        images: local names, NAME or NAME:TAG; the repository is REGISTRY/NAME.
        config: the credentials' region for ECR is the registry's own.

    Raises:
        UsageError: the registry is no registry's name, or an image is not there.
        PunchError: Docker, AWS or the registry refused; the message names which, and why.
    """
    registry = registry.rstrip("/")
    if not _REGISTRY.match(registry):
        raise UsageError(
            f"{registry!r} is not a registry", next_step="use HOST[:PORT][/PATH], without a scheme"
        )
    config = config or Config.from_env()
    host, _, path = registry.partition("/")
    if region := region_of(registry):
        repositories = Repositories(replace(config, region=region))
        prefix = f"{path}/" if path else ""
        return [repositories.push(name, prefix + name.partition(":")[0], host) for name in images]
    with _daemon() as daemon:
        found = [(name, _local(daemon, name)) for name in images]
        return [
            _push(daemon, f"{registry}/{name.partition(':')[0]}", name, image, None)
            for name, image in found
        ]


def region_of(reference: str) -> str | None:
    """The region of an image or a registry in ECR; None for any other."""
    match = _ECR.match(reference.partition("/")[0])
    return match["region"] if match else None


def architecture(name: str) -> str:
    """For which machines a local image is, as Lambda calls them.

    Raises:
        UsageError: it is not there, or for machines that Lambda does not have.
        PunchError: Docker does not answer.
    """
    with _daemon() as daemon:
        kind = str(_local(daemon, name).attrs["Architecture"])
    try:
        return {"amd64": "x86_64", "arm64": "arm64"}[kind]
    except KeyError:
        raise UsageError(
            f"the image {name} is for {kind}; Lambda has x86_64 and arm64",
            next_step="build it on a machine of such a kind",
        ) from None


class Repositories:
    """Our repositories in ECR, in one region."""

    def __init__(self, config: Config) -> None:
        self._ecr = client("ecr", config)
        self._region = config.region

    def uri(self, repository: str) -> str | None:
        """Where a repository is; None where there is none of that name."""
        found = self._ask("describe_repositories", repositoryNames=[repository])
        return str(found["repositories"][0]["repositoryUri"]) if found else None

    def push(self, name: str, repository: str, registry: str | None = None) -> Pushed:
        """Pushes a local image, unless the repository has it.

        Args:
            name: the local image.
            repository: the repository's name.
            registry: where it is, for an emulation; None takes what ECR says.
        """
        uri = f"{registry}/{repository}" if registry else self.uri(repository)
        if uri is None:
            raise UsageError(
                f"there is no repository {repository}", next_step="punch deploy makes it"
            )
        with _daemon() as daemon:
            image = _local(daemon, name)
            tag = _tag(image)
            if digest := self._digest(repository, tag):
                return Pushed(name, f"{uri}:{tag}", f"{uri}@{digest}", int(image.attrs["Size"]))
            return _push(daemon, uri, name, image, self._login())

    def digests(self, repository: str) -> list[str]:
        """All images of a repository, the newest first."""
        found: dict[str, Any] = {}
        token: dict[str, str] = {}
        while True:
            page = self._ask("describe_images", repositoryName=repository, **token)
            if page is None:
                return []
            for image in page["imageDetails"]:
                found[image["imageDigest"]] = image["imagePushedAt"]
            if not page.get("nextToken"):
                return sorted(found, key=found.__getitem__, reverse=True)
            token = {"nextToken": page["nextToken"]}

    def remove(self, repository: str, digests: Sequence[str]) -> None:
        """Removes images, with all their tags."""
        for start in range(0, len(digests), 100):
            ids = [{"imageDigest": digest} for digest in digests[start : start + 100]]
            self._ask("batch_delete_image", repositoryName=repository, imageIds=ids)

    def forget_old(self, deployed: str) -> None:
        """Removes all but the newest images; never `deployed`, a reference by digest."""
        name, _, digest = deployed.partition("@")
        repository = name.partition("/")[2]
        old = [d for d in self.digests(repository)[KEPT:] if d != digest]
        self.remove(repository, old)

    def _digest(self, repository: str, tag: str) -> str:
        found = self._ask(
            "describe_images", repositoryName=repository, imageIds=[{"imageTag": tag}]
        )
        details = found["imageDetails"] if found else []
        return str(details[0]["imageDigest"]) if details else ""

    def _login(self) -> dict[str, str]:
        answer = self._ask("get_authorization_token")
        token = answer["authorizationData"][0]["authorizationToken"] if answer else ""
        user, _, password = base64.b64decode(token).decode().partition(":")
        return {"username": user, "password": password}

    def _ask(self, operation: str, **request: Any) -> dict[str, Any] | None:
        """None where what was asked for is not there."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return dict(getattr(self._ecr, operation)(**request))
        except (BotoCoreError, ClientError) as error:
            if errors.is_code(error, "RepositoryNotFoundException", "ImageNotFoundException"):
                return None
            ours = errors.translate(error, f"ECR in {self._region}", PunchError)
            assert ours is not None
            ours.next_step = ours.next_step or (
                "check the permissions on ECR listed in docs/deploy-aws.md, and the region"
            )
            raise ours from error


@contextmanager
def _daemon() -> Iterator[Any]:
    import docker
    from docker.errors import APIError, DockerException

    try:
        daemon = docker.from_env(timeout=600)
        try:
            yield daemon
        finally:
            daemon.close()
    except APIError as error:
        raise PunchError(f"Docker refused: {error.explanation or error}") from error
    except DockerException as error:
        raise PunchError(
            f"Docker does not answer: {error}",
            next_step="start Docker, or name images that are in a registry (--image)",
        ) from error


def _local(daemon: Any, name: str) -> Any:
    from docker.errors import ImageNotFound

    try:
        return daemon.images.get(name)
    except ImageNotFound:
        raise UsageError(
            f"there is no image {name} here",
            next_step="build it with `make images` in a clone, or name one in a registry (--image)",
        ) from None


def _tag(image: Any) -> str:
    return str(image.id).removeprefix("sha256:")[:16]


def _push(
    daemon: Any, repository: str, name: str, image: Any, login: dict[str, str] | None
) -> Pushed:
    registry = repository.partition("/")[0]
    tag = _tag(image)
    image.tag(repository, tag)
    digest = ""
    try:
        for line in daemon.images.push(
            repository, tag=tag, stream=True, decode=True, auth_config=login
        ):
            if "error" in line:
                raise PunchError(
                    f"{registry} did not take {repository}: {line['error']}",
                    next_step=_next_step(registry, str(line["error"])),
                )
            digest = line.get("aux", {}).get("Digest", digest)
    finally:
        daemon.images.remove(f"{repository}:{tag}", noprune=True)
    if not digest:
        raise PunchError(f"{registry} gave no digest for {repository}:{tag}")
    return Pushed(name, f"{repository}:{tag}", f"{repository}@{digest}", int(image.attrs["Size"]))


def _next_step(registry: str, error: str) -> str:
    if "does not exist" in error or "name unknown" in error:
        return "make the repositories first, or let `punch deploy` do it all"
    if "denied" in error or "no basic auth" in error or "unauthorized" in error:
        return f"docker login {registry.partition('/')[0]}, or check the permissions to push"
    return "check that the registry can be reached from the Docker daemon"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="punchlib.aws.images", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    pushing = commands.add_parser("push", help="tag by digest and push")
    pushing.add_argument("registry", metavar="REGISTRY")
    pushing.add_argument("images", metavar="IMAGE", nargs="+")
    pushing.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    try:
        pushed = push(arguments.registry, arguments.images)
    except PunchError as error:
        print(f"images: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.json:
        print(json.dumps({"v": 1, "pushed": [vars(p) for p in pushed]}))
    else:
        for image in pushed:
            print(image.reference)
    return 0


if __name__ == "__main__":
    sys.exit(main())
