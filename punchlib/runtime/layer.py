"""A Lambda layer: punchlib for a zip function that runs a Python of AWS's own.

What the zip holds, unpacked at /opt on a worker:

    pashlib             what scripts call
    runtime/ aws/       the tools
    bin/python3.9       AWS's Python under the name by which scripts call it; /opt/bin is on PATH
    python/             punchlib and what it needs on a node, where AWS's Python looks for packages
    python/punch_layer.py   `punch_layer.handler`, which runs scripts in /opt

Dependencies are wheels for the worker's Python, processor and C library, in the versions of this
Python's. The same inputs give the same bytes.
"""

from __future__ import annotations

import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import punchlib
from punchlib.errors import PunchError, UsageError
from punchlib.runtime import layout

#: AWS's limits, in bytes: of a zip that is sent with the call, and of function and layers together.
MOST_ZIPPED = 50 << 20
MOST_UNZIPPED = 250 << 20
HANDLER = "punch_layer.handler"
#: Where AWS's Python runtimes have their interpreter.
PYTHON = "/var/lang/bin/python{version}"
#: Amazon Linux 2023, the system under Python 3.12 and later, has glibc 2.34.
_GLIBC_MINORS = (34, 28, 17)
#: What the runner needs and a node does not.
_RUNNERS = ("docker", "rich", "typer")
_MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}
_EPOCH = (1980, 1, 1, 0, 0, 0)
_HANDLER_MODULE = '''"""The handler of a zip function that has punchlib's layer."""

import os

# Here, and not in the function's own folder, are the tools that go with this handler.
os.environ["PASH_TOP"] = "/opt"
from punchlib.node.lambda_handler import handler  # noqa: E402, F401
'''


class Layer(NamedTuple):
    """A layer in a file.

    Attributes:
        file: the zip.
        python: the version it is for, as `3.12`.
        architecture: the processor, in Lambda's words.
        zipped: bytes of the zip.
        unzipped: bytes of what it holds.
        compiled: it holds compiled modules; without them each fresh worker compiles.
    """

    file: Path
    python: str
    architecture: str
    zipped: int
    unzipped: int
    compiled: bool


def this_architecture() -> str:
    """This machine's, in Lambda's words."""
    return {"aarch64": "arm64"}.get(platform.machine(), platform.machine())


def make(file: Path, python: str, architecture: str) -> Layer:
    """Makes the layer.

    Args:
        file: the zip to write.
        python: `3.12` or a later one.
        architecture: `x86_64` or `arm64`.

    Raises:
        UsageError: AWS has no such Python or processor, or older ones than we run on.
        PunchError: the packages cannot be had, or it is larger than AWS takes.
    """
    if not re.fullmatch(r"3\.(1[2-9]|[2-9]\d)", python):
        raise UsageError(
            f"a layer for Python {python}: AWS runs 3.11 and older on a system that is too old",
            next_step="give the function a runtime of python3.12 or later, and say --layer-python",
        )
    if architecture not in _MACHINES:
        raise UsageError(f"Lambda has no processor {architecture}", next_step="say x86_64 or arm64")
    with tempfile.TemporaryDirectory(prefix="punch-layer-") as name:
        root = Path(name)
        _install(root / "python", python, _MACHINES[architecture])
        compiled = _compile(root / "python", python)
        _lay_out(root, python)
        unzipped = _zip(root, file)
    layer = Layer(file, python, architecture, file.stat().st_size, unzipped, compiled)
    for size, most, what in (
        (layer.zipped, MOST_ZIPPED, "zipped"),
        (layer.unzipped, MOST_UNZIPPED, "unzipped"),
    ):
        if size > most:
            raise PunchError(f"the layer has {size:,} bytes {what}; Lambda takes {most:,}")
    return layer


def requirements() -> list[str]:
    """What a node needs of punchlib's own requirements."""
    wanted = metadata.requires("punchlib") or []
    names = {r: re.split(r"[^\w.-]", r)[0].lower() for r in wanted if "extra ==" not in r}
    return [requirement for requirement, name in names.items() if name not in _RUNNERS]


def _install(target: Path, python: str, machine: str) -> None:
    constraints = target.with_name("constraints")
    pinned = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    pinned.pop("punchlib", None)
    constraints.write_text("".join(f"{n}=={v}\n" for n, v in sorted(pinned.items())))
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in _GLIBC_MINORS]
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--target", str(target), "--no-compile", "--only-binary=:all:"),
        *("--python-version", python, "--implementation", "cp", *platforms),
        *(f"--platform=manylinux2014_{machine}", "--constraint", str(constraints)),
        *requirements(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise PunchError(
            f"pip cannot get the packages for Python {python} on {machine}: "
            f"{done.stderr.strip()[-500:]}",
            next_step="look whether this machine reaches PyPI, and whether this Python has pip",
        )
    constraints.unlink()
    shutil.rmtree(target / "bin", ignore_errors=True)
    ours = Path(punchlib.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ours, target / "punchlib", ignore=ignored)
    (target / f"{HANDLER.partition('.')[0]}.py").write_text(_HANDLER_MODULE)


def _compile(packages: Path, python: str) -> bool:
    """Compiles the packages, where this machine has the Python that runs them."""
    interpreter = shutil.which(f"python{python}")
    if interpreter is None:
        return False
    # What is in a layer never changes, so that no start-up has to compare time stamps.
    command = [interpreter, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    strip = ["-s", str(packages), "-p", "/opt/python"]
    done = subprocess.run([*command, *strip, str(packages)], capture_output=True)
    return done.returncode == 0  # a shim of pyenv may be there, and no Python behind it


def _lay_out(root: Path, python: str) -> None:
    interpreter = PYTHON.format(version=python)
    major, minor = map(int, python.split("."))
    at = layout.Installation(interpreter, (major, minor), ("/opt/python",))
    layout.lay_out(root, at)
    layout.write_pashlib(root / "pashlib", at)
    layout.lay_out_bin(root / "bin", interpreter, ["python3.9"])


def _zip(root: Path, file: Path) -> int:
    """Writes the zip, whole or not at all; the bytes of what it holds."""
    size = 0
    new = file.with_name(file.name + ".new")
    with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(_files(root)):
            entry = zipfile.ZipInfo(str(path.relative_to(root)), _EPOCH)
            mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            entry.external_attr = (stat.S_IFREG | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            content = path.read_bytes()
            size += len(content)
            archive.writestr(entry, content)
    new.rename(file)
    return size


def _files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file())
