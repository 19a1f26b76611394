"""Pushes the images to a registry: `python -m punchlib.aws.images push REGISTRY IMAGE…`.

Each image is tagged with its own digest, so that a tag never means two things, and the reference
by digest that the registry answers with is what a deployment takes. For Amazon ECR the login comes
from the AWS credentials (`ecr:GetAuthorizationToken`).
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from dataclasses import dataclass
from typing import Any

from punchlib.aws.clients import client
from punchlib.config import Config
from punchlib.errors import PunchError, UsageError

_ECR = re.compile(r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?$")
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
    import docker
    from docker.errors import APIError, DockerException, ImageNotFound

    registry = registry.rstrip("/")
    if not _REGISTRY.match(registry):
        raise UsageError(
            f"{registry!r} is not a registry", next_step="use HOST[:PORT][/PATH], without a scheme"
        )
    login = _ecr_login(registry, config or Config.from_env())
    try:
        daemon = docker.from_env(timeout=600)
        found = []
        for name in images:
            try:
                found.append((name, daemon.images.get(name)))
            except ImageNotFound:
                raise UsageError(
                    f"there is no image {name} here", next_step="build it first: make images"
                ) from None
        return [_push(daemon, registry, name, image, login) for name, image in found]
    except APIError as error:
        raise PunchError(f"Docker refused: {error.explanation or error}") from error
    except DockerException as error:
        raise PunchError(
            f"Docker does not answer: {error}", next_step="start Docker and try again"
        ) from error


def _push(
    daemon: Any, registry: str, name: str, image: Any, login: dict[str, str] | None
) -> Pushed:
    repository = f"{registry}/{name.partition(':')[0]}"
    tag = str(image.id).removeprefix("sha256:")[:16]
    image.tag(repository, tag)
    digest = ""
    for line in daemon.images.push(
        repository, tag=tag, stream=True, decode=True, auth_config=login
    ):
        if "error" in line:
            raise PunchError(
                f"{registry} did not take {repository}: {line['error']}",
                next_step=_next_step(registry, str(line["error"])),
            )
        digest = line.get("aux", {}).get("Digest", digest)
    if not digest:
        raise PunchError(f"{registry} gave no digest for {repository}:{tag}")
    return Pushed(name, f"{repository}:{tag}", f"{repository}@{digest}", int(image.attrs["Size"]))


def _ecr_login(registry: str, config: Config) -> dict[str, str] | None:
    """Docker's credentials for an ECR registry; None for any other."""
    match = _ECR.match(registry.partition("/")[0])
    if match is None:
        return None
    from dataclasses import replace

    from botocore.exceptions import BotoCoreError, ClientError

    try:
        ecr = client("ecr", replace(config, region=match["region"]))
        token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    except (BotoCoreError, ClientError) as error:
        raise PunchError(
            f"no login for {registry}: {error}",
            next_step="check the AWS credentials; they need ecr:GetAuthorizationToken",
        ) from error
    user, _, password = base64.b64decode(token).decode().partition(":")
    return {"username": user, "password": password}


def _next_step(registry: str, error: str) -> str:
    if "does not exist" in error or "name unknown" in error:
        return "make the repositories first: deploy/registry.yaml (docs/deploy-aws.md)"
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
