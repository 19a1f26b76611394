"""Lays out what a generated script calls: `runtime/`, `aws/`, `/opt/pashlib`, `python3.9`.

Every entry is a small launcher. The stream tools start a script's every stage, so their
launchers run `python -I -S` (no site, no environment: 12 ms instead of 33) and put the folder
that holds punchlib on the path themselves. The S3 tools are called as `python3.9 aws/NAME.py`,
by whatever interpreter bears that name and with whatever flags it has, so theirs find the
packages by themselves, and hand over to the right interpreter when they are in the wrong one.

    python -m punchlib.runtime.layout DIR              runtime/ and aws/ in DIR
    python -m punchlib.runtime.layout --pashlib FILE   the launcher of /opt/pashlib
    python -m punchlib.runtime.layout --bin DIR        python3 and python3.9
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from hashlib import sha256
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from punchlib.errors import PunchError, UsageError
from punchlib.runtime.catalogue import AWS, TOOLS

_HERE = Path(__file__).resolve().parent
#: The folder to put on the path: what holds the package `punchlib`.
_ROOT = _HERE.parent.parent

WAIT_SCRIPT = "wait_for_output_and_sigpipe_rest.sh"

#: What follows the name of a file that was there and not ours, or no longer as we had written it.
BEFORE = ".before-punch"
#: The last line of every file that we lay out, with a digest of all that is before it.
_SEAL = "# laid out by punchlib, sha256 "

#: A shebang line ends at the first space and, on older kernels, at 127 bytes. In this form the
#: shell reads one `exec` line, and Python reads the same line as a string.
_SH_EXEC = "#!/bin/sh\n'''exec' {python} {flags} \"$0\" \"$@\"\n' '''\n"


class Installation(NamedTuple):
    """A Python that has punchlib, here or on the machine that the files are for.

    Attributes:
        python: absolute path of the interpreter.
        version: its major and minor number.
        packages: the folders that hold punchlib, first, and its dependencies.
    """

    python: str
    version: tuple[int, int]
    packages: tuple[str, ...]


def here(python: str = sys.executable) -> Installation:
    """This one.

    Args:
        python: another name of this interpreter.

    Raises:
        UsageError: it lacks punchlib's dependencies.
    """
    return Installation(python, sys.version_info[:2], _package_paths())


def lay_out(target: Path, at: Installation | None = None) -> None:
    """Makes `target/runtime/` and `target/aws/`, replacing what is there.

    A file that is not ours, or that somebody has changed since, is kept beside its successor, as
    NAME.before-punch, and named on stderr.

    Args:
        target: the folder in which scripts run (`/var/task`, `$PASH_TOP`).
        at: what runs the tools; None: this Python.
    """
    at = at or here()
    runtime, aws = target / "runtime", target / "aws"
    for folder in (runtime / "lib", aws):
        folder.mkdir(parents=True, exist_ok=True)
    for name, tool in TOOLS.items():
        if not tool.served:
            _write(target / tool.folder / name, _stream_launcher(tool.module, at))
        elif tool.folder == AWS:
            _write(target / tool.folder / name, _s3_launcher(name, at))
    # Sourced, but people also look at its mode.
    _write(runtime / WAIT_SCRIPT, (_HERE / WAIT_SCRIPT).read_text(encoding="utf-8"))
    _write(runtime / "punch-commit", _s3_launcher("punch-commit", at))
    write_pashlib(runtime / "pashlib", at)


def lay_out_bin(
    target: Path, python: str = sys.executable, names: Iterable[str] = ("python3", "python3.9")
) -> None:
    """Makes `names` in `target`, which run `python`: put it on PATH."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        _write(target / name, f'#!/bin/sh\n# punchlib\nexec {quote(python)} "$@"\n')


def write_pashlib(path: Path, at: Installation | None = None) -> None:
    """Writes the launcher of `pashlib`, for `/opt/pashlib` and `runtime/pashlib`."""
    at = at or here()
    _write(path, _shebang(at.python, "-IS") + _call_thin("pashlib", at))


def _stream_launcher(module: str, at: Installation) -> str:
    # In front: the stream tools import little but punchlib, and what they take from the standard
    # library is mostly frozen into the interpreter.
    return _shebang(at.python, "-IS") + (
        "import sys\n"
        f"sys.path.insert(0, {at.packages[0]!r})\n"
        f"from punchlib.runtime.{module} import main\n"
        "sys.exit(main())\n"
    )


def _s3_launcher(tool: str, at: Installation) -> str:
    python = at.python
    # `python3.9 aws/x.py` may be a real Python 3.9, which cannot load our packages.
    handover = (
        "import os, sys\n"
        f"if sys.version_info[:2] != {at.version!r}:\n"
        f"    os.execv({python!r}, [{python!r}, '-IS', os.path.abspath(__file__), *sys.argv[1:]])\n"
    )
    return _shebang(python, "-IS") + handover + _call_thin(tool, at)


def _call_thin(tool: str, at: Installation) -> str:
    """For tools that need boto3 and its kin: by the engine, or here without `site` (20 ms)."""
    inserted = ", ".join(map(repr, at.packages))
    return (
        "import sys\n"
        f"sys.path[:0] = [{inserted}]\n"
        "from punchlib.runtime.engine_client import run\n"
        f"sys.exit(run({tool!r}))\n"
    )


def _package_paths() -> tuple[str, ...]:
    """Where punchlib and its dependencies live; the same folder once it is installed."""
    spec = find_spec("boto3")
    if spec is None or spec.origin is None:
        raise UsageError(
            f"{sys.executable} has no boto3",
            next_step="install punchlib with pip into the Python that lays out the tools",
        )
    packages = Path(spec.origin).resolve().parent.parent
    return (str(_ROOT),) if packages == _ROOT else (str(_ROOT), str(packages))


def _shebang(python: str, flags: str) -> str:
    if " " not in python and len(python) + len(flags) < 120:
        return f"#!{python} {flags}\n"
    if "'" in python or "\\" in python:
        raise UsageError(
            f"the path of the interpreter holds a quote or a backslash: {python}",
            next_step="put the virtual environment into a folder with a plainer name",
        )
    return _SH_EXEC.format(python=f"'{python}'" if " " in python else python, flags=flags)


def _write(path: Path, text: str) -> None:
    _keep_theirs(path)
    # Aside and renamed: a script that is running keeps the file that it has open.
    new = path.with_name(path.name + ".new")
    new.write_text(text + _seal(text.encode()), encoding="utf-8")
    new.chmod(0o755)
    new.rename(path)


def _seal(content: bytes) -> str:
    return f"{_SEAL}{sha256(content).hexdigest()}\n"


def _keep_theirs(path: Path) -> None:
    """The user's own runtime may lie here: the old program, or what they made of it or of ours."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    body, seal, _ = content.rpartition(_SEAL.encode())
    if seal and content[len(body) :] == _seal(body).encode():
        return
    # Never over what was kept before: the first is the way back.
    names = (path.with_name(path.name + BEFORE + number) for number in _numbers())
    kept = next(name for name in names if not name.exists())
    path.rename(kept)
    print(f"layout: {path} was not as we lay it out: kept as {kept.name}", file=sys.stderr)


def _numbers() -> Iterator[str]:
    yield ""
    yield from (f".{n}" for n in count(2))


def main(argv: list[str] | None = None) -> int:
    """`python -m punchlib.runtime.layout [--pashlib | --bin] PATH`."""
    args = sys.argv[1:] if argv is None else argv
    try:
        match args:
            case ["--pashlib", path]:
                write_pashlib(Path(path))
            case ["--bin", folder]:
                lay_out_bin(Path(folder))
            case [folder] if not folder.startswith("-"):
                lay_out(Path(folder))
            case _:
                raise UsageError(
                    "wrong arguments",
                    next_step="python -m punchlib.runtime.layout [--pashlib | --bin] PATH",
                )
    except PunchError as error:
        print(f"layout: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"layout: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
