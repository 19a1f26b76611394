"""The tools that need boto3: by name, for the engine and for a call without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

Main = Callable[[Sequence[str]], int]

#: Tool -> (module of punchlib.runtime, function that takes the arguments).
TOOLS = {
    "pashlib": ("pashlib", "main"),
    "s3-get-object.py": ("s3_get", "main"),
    "s3-put-object.py": ("s3_put", "main"),
    "s3-shard-reader.py": ("s3_ranges", "shard_reader"),
    "s3-chunk-reader.py": ("s3_ranges", "chunk_reader"),
    "punch-commit": ("commit", "main"),
    "invoke-lambda.py": ("invoke_lambda", "main"),
}

#: Under the engine the paths in the arguments are descriptors: what people call them.
NAMES: dict[str, str] = {}


def display_name(path: str) -> str:
    """The name by which people know a path from the arguments."""
    return NAMES.get(path, path)


def load(tool: str) -> Main:
    """Imports the tool; its `main` takes the arguments and returns the exit code."""
    module, function = TOOLS[tool]
    main: Main = getattr(import_module(f"punchlib.runtime.{module}"), function)
    return main
