"""A program on a host of the lab that is told what to do: JSON objects, one a line, both ways."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from tests.support.netlab import Host, LabError


class Program:
    """Our end of its pipes. It lives as long as its host.

    Args:
        host: where it runs.
        module: what it runs, as `python -m`.
        arguments: the module's.
        env: its environment; ours when there is none.
    """

    def __init__(
        self, host: Host, module: str, *arguments: str, env: Mapping[str, str] | None = None
    ) -> None:
        self._module = module
        self._process = host.ns.popen(
            [sys.executable, "-m", module, *arguments],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def send(self, **request: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """The next line that it says.

        Raises:
            LabError: it has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LabError(f"{self._module} ended with {self._process.wait()}")
        return json.loads(line)

    def ask(self, **request: Any) -> Any:
        self.send(**request)
        return self.answer()

    def close(self) -> None:
        """Lets it end by itself, and whatever it has started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
