#!/usr/bin/env python3
"""Builds the project's images: `python -m services.build [--extra PACKAGE]… [IMAGE]…`.

What an image needs is laid out on the host first, in .build/images/, so that no build needs a
network or certificates of its own:

    site/            the Python packages, for the images' Python, whatever the host's is
    app/             punchlib, from its wheel
    ministack/       the local AWS
    aws-lambda-rie   AWS's runtime interface emulator

Base images come from a registry where one answers, else from Debian's packages. The Dockerfiles
need neither BuildKit nor the classic builder in particular. An image is tagged with a digest of
what it is made from: one whose inputs have not changed is not built again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO

import docker
from docker.errors import APIError, BuildError, DockerException, ImageNotFound
from requests.exceptions import RequestException

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / ".build" / "images"
#: Seconds until a registry that does not answer counts as out of reach.
REGISTRY_TIMEOUT = 8
#: The Python of the base images, of the registry's and of Debian trixie's alike.
PYTHON = "3.13"


@dataclass(frozen=True)
class Base:
    """A base image.

    Attributes:
        origin: its image in a registry.
        packages: Debian packages on top of that.
        bootstrap: Debian packages that `origin` brings along and a bootstrap must add.
    """

    origin: str
    packages: tuple[str, ...]
    bootstrap: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    """An image of ours.

    Attributes:
        dockerfile: its path in the repository; what it COPYs are the image's inputs.
        parent: the base, or the image of ours, that it is FROM.
        argument: the build argument that takes the parent's name.
    """

    dockerfile: str
    parent: str
    argument: str = "BASE"


BASES = {
    "base-node": Base(
        "python:3.13-slim-trixie",
        # Everything that a generated script calls and that is not in every Debian.
        ("bsdextrautils", "ca-certificates", "file", "gawk", "mount", "openssl"),
        ("python3",),
    ),
    "base-net": Base(
        "debian:trixie-slim",
        ("coturn", "iproute2", "nftables"),
    ),
}
IMAGES = {
    "packages": Image("services/packages/Dockerfile", "base-node"),
    "node": Image("Dockerfile", "packages", "PACKAGES"),
    "lambda": Image("lambda.Dockerfile", "node", "NODE"),
    "lambda-local": Image("services/lambda/Dockerfile", "lambda", "IMAGE"),
    "aws": Image("services/aws/Dockerfile", "base-node"),
    "nat": Image("services/nat/Dockerfile", "base-net"),
    "router": Image("services/router/Dockerfile", "base-net"),
    "stun": Image("services/stun/Dockerfile", "base-net"),
}


def tag(name: str) -> str:
    """The local name of an image or a base."""
    return f"punch-{name}:local"


class Builder:
    """Builds images, each one once, parents first."""

    def __init__(self, client: docker.DockerClient, extra: tuple[str, ...] = ()) -> None:
        self._client = client
        self._extra = extra
        self._digests: dict[str, str] = {}

    def build(self, name: str) -> str:
        """Makes the image current, and returns the digest of what it is made from."""
        if name not in self._digests:
            digest = self._base_digest(name) if name in BASES else self._image_digest(name)
            self._digests[name] = digest
            exact = f"punch-{name}:{digest}"
            try:
                image = self._client.images.get(exact)
            except ImageNotFound:
                started = time.monotonic()
                self._base(name, exact) if name in BASES else self._image(name, exact)
                say(f"{name}: built in {time.monotonic() - started:.0f} s")
                image = self._client.images.get(exact)
            image.tag(f"punch-{name}", "local")
            self._forget_older(name, exact)
        return self._digests[name]

    def _base_digest(self, name: str) -> str:
        packages = (*BASES[name].packages, *self._extra_of(name), *BASES[name].bootstrap)
        return short_digest(repr((origin_of(name), packages)).encode())

    def _image_digest(self, name: str) -> str:
        image = IMAGES[name]
        digest = hashlib.sha256(self.build(image.parent).encode())
        for path in inputs(ROOT / image.dockerfile):
            digest.update(tree_digest(path))
        return short_digest(digest.digest())

    def _extra_of(self, name: str) -> tuple[str, ...]:
        return self._extra if name == "base-node" else ()

    def _base(self, name: str, exact: str) -> None:
        base, origin = BASES[name], origin_of(name)
        packages = [*base.packages, *self._extra_of(name)]
        if self._reachable(origin):
            say(f"{name}: from {origin}")
            arguments = {"FROM": origin, "PACKAGES": " ".join(packages)}
            self._docker_build(exact, "services/base/Dockerfile", arguments)
        else:
            say(f"{name}: no registry has {origin} for us; bootstrapping from Debian's packages")
            script = ROOT / "services/base/bootstrap.sh"
            run([str(script), exact, *packages, *base.bootstrap])

    def _image(self, name: str, exact: str) -> None:
        image = IMAGES[name]
        self._docker_build(exact, image.dockerfile, {image.argument: tag(image.parent)})

    def _reachable(self, image: str) -> bool:
        """Whether the daemon can pull an image; it asks only for the manifest, and briefly."""
        try:
            docker.from_env(timeout=REGISTRY_TIMEOUT).images.get_registry_data(image)
        except (DockerException, RequestException):
            return False
        return True

    def _docker_build(self, exact: str, dockerfile: str, arguments: dict[str, str]) -> None:
        try:
            with context(ROOT / dockerfile) as archive:
                self._client.images.build(
                    fileobj=archive,
                    custom_context=True,
                    dockerfile=dockerfile,
                    tag=exact,
                    buildargs=arguments,
                    rm=True,
                    forcerm=True,
                )
        except BuildError as error:
            log = "".join(str(line.get("stream", "")) for line in error.build_log)
            raise SystemExit(f"{log}\n{exact}: {error.msg}") from None
        except APIError as error:
            raise SystemExit(f"{exact}: {error.explanation}") from None

    def _forget_older(self, name: str, exact: str) -> None:
        """Removes the tags of earlier builds; a container that still runs one keeps it."""
        for image in self._client.images.list(f"punch-{name}"):
            for old in image.tags:
                if old.startswith(f"punch-{name}:") and old not in (exact, tag(name)):
                    with contextlib.suppress(APIError):
                        self._client.images.remove(old)


def origin_of(base: str) -> str:
    """The registry's image of a base; PUNCH_BASE_NODE and PUNCH_BASE_NET name others."""
    return os.environ.get(f"PUNCH_{base.upper().replace('-', '_')}", BASES[base].origin)


def short_digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def inputs(dockerfile: Path) -> Iterator[Path]:
    """The files and folders that a Dockerfile is made from, itself included."""
    yield dockerfile
    for line in dockerfile.read_text().replace("\\\n", "").splitlines():
        if found := re.match(r"COPY (?!--from)(.+) \S+$", line):
            yield from (ROOT / source for source in found[1].split())


def context(dockerfile: Path) -> IO[bytes]:
    """The build context as a tar file: the inputs and nothing else, so that little is sent."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 (the caller reads it)
    with tarfile.open(fileobj=file, mode="w") as archive:
        for path in inputs(dockerfile):
            archive.add(path, arcname=str(path.relative_to(ROOT)), filter=_without_owner)
    file.seek(0)
    return file


def _without_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def tree_digest(path: Path) -> bytes:
    """A digest of a file, or of a folder: names, modes and contents."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    if not files:
        raise SystemExit(f"{path.relative_to(ROOT)} is empty or missing")
    for file in files:
        mode = file.stat().st_mode & 0o777
        digest.update(f"{file.relative_to(path.parent)} {mode:o}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()


def lay_out(names: set[str]) -> None:
    """Makes current what the images COPY from .build/images/."""
    BUILD.mkdir(parents=True, exist_ok=True)
    if names & {"packages", "node", "lambda", "lambda-local"}:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        wanted = [*project["dependencies"], *project["optional-dependencies"]["lambda"]]
        site(BUILD / "site", wanted)
        app(BUILD / "app")
    if "lambda-local" in names:
        emulator(BUILD / "aws-lambda-rie")
    if "aws" in names:
        site(BUILD / "ministack", ["ministack>=1.4", "docker>=7.1"])


def site(target: Path, requirements: list[str]) -> None:
    """Installs wheels for the images' Python into a folder, in the versions of this Python's."""
    machine = platform.machine()
    pinned = sorted(
        f"{d.metadata['Name']}=={d.version}"
        for d in metadata.distributions()
        if d.metadata["Name"] not in ("punchlib", "pip", "setuptools")
    )
    key = repr((requirements, pinned, machine, PYTHON))
    with current(target, hashlib.sha256(key.encode()).hexdigest()) as is_current:
        if is_current:
            return
        constraints = BUILD / f"{target.name}.constraints"
        constraints.write_text("\n".join(pinned) + "\n")
        platforms = [f"manylinux_2_{minor}_{machine}" for minor in (34, 28, 17)]
        pip(
            *("install", "--target", str(target), "--no-compile", "--only-binary=:all:"),
            *("--python-version", PYTHON, "--implementation", "cp"),
            *(f"--platform={p}" for p in (*platforms, f"manylinux2014_{machine}")),
            *("--constraint", str(constraints), *requirements),
        )
        shutil.rmtree(target / "bin", ignore_errors=True)


def app(target: Path) -> None:
    """Installs punchlib from its wheel into a folder."""
    sources = [ROOT / "pyproject.toml", ROOT / "README.md"]
    sources += sorted(
        p
        for p in (ROOT / "punchlib").rglob("*")
        if p.suffix in (".py", ".sh", ".yaml", ".html", ".css")
    )
    digest = hashlib.sha256()
    for path in sources:
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    with current(target, digest.hexdigest()) as is_current:
        if is_current:
            return
        wheels = BUILD / "wheel"
        # setuptools leaves build/lib behind, and would pack modules that are gone.
        for leftover in (wheels, ROOT / "build" / "lib"):
            shutil.rmtree(leftover, ignore_errors=True)
        pip("wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))
        (wheel,) = wheels.glob("punchlib-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)


def emulator(target: Path) -> None:
    """Fetches AWS's runtime interface emulator, as `punch run --local` does."""
    if not target.exists():
        run([sys.executable, "-m", "punchlib.local.rie", str(target)])


class current:  # noqa: N801 (used as a function)
    """Whether a folder was made from the same key; else it is made anew, and only then marked."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._key = folder, key
        self._stamp = folder.with_name(f"{folder.name}.stamp")

    def __enter__(self) -> bool:
        if self._stamp.exists() and self._stamp.read_text() == self._key:
            return True
        self._stamp.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        return False

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._stamp.write_text(self._key)


def pip(*arguments: str) -> None:
    run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments])


def run(command: list[str]) -> None:
    """Runs a command; its failure is ours, and it has said why."""
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError as error:
        raise SystemExit(f"{error.filename} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{Path(command[0]).name} failed ({error.returncode})") from None


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def connect() -> docker.DockerClient:
    """A client of the Docker daemon; without one, says what to install."""
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except DockerException as error:
        raise SystemExit(
            f"Docker does not answer: {error}\n"
            "  next: install Docker Engine 20.10 or newer (Debian: apt-get install docker.io),\n"
            "  start it, and let this user reach its socket; without Docker there is `make demo`"
        ) from None
    return client


def make(names: list[str], extra: tuple[str, ...] = ()) -> dict[str, str]:
    """Makes images current, parents first; returns the digest that each is made from."""
    builder = Builder(connect(), extra)
    lay_out(set(names))
    return {name: builder.build(name) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extra", action="append", default=[], metavar="PACKAGE")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=", ".join(IMAGES))
    arguments = parser.parse_args()
    names = arguments.images or list(IMAGES)
    if unknown := set(names) - IMAGES.keys():
        parser.error(f"no such image: {', '.join(unknown)}; there are {', '.join(IMAGES)}")
    make(names, tuple(arguments.extra))
    client = connect()
    for name in (name for name in names if name != "packages"):
        size = client.images.get(tag(name)).attrs["Size"]
        print(f"{tag(name):24} {size / 1e6:6.0f} MB")


if __name__ == "__main__":
    main()
