"""Every tool that a script calls: where it lies, what runs it, which files it reads and writes.

Plain data for four readers: the layout makes a launcher for each, the engine's client opens the
paths among the arguments and the engine puts its descriptors in their place, the checks of a job
see which FIFO has a reader and a writer. Built-in modules only: the client starts with each stage.
"""

from __future__ import annotations

import posix

# As typing.TYPE_CHECKING, which takes 6 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Main = Callable[[Sequence[str]], int]

READ, WRITTEN = "read", "written"
#: Where the layout puts a tool.
RUNTIME, AWS = "runtime", "aws"


class Tool:
    """One tool.

    Attributes:
        folder: `RUNTIME` or `AWS`.
        module: of `punchlib.runtime`.
        function: of that module. One that the engine serves takes the arguments, the others none;
            both return the exit status.
        served: it needs boto3 and its kin, so the engine runs it where there is one.
        files: which arguments are paths, and what is done with them: an index ("1"), one and all
            that follow ("1:"), an option that has it as its value ("-o"), or "*" for connections,
            whose last part it is.
        flags: options without a value, which are no arguments to count.
    """

    __slots__ = ("files", "flags", "folder", "function", "module", "served")

    def __init__(
        self,
        folder: str,
        module: str,
        function: str = "main",
        *,
        served: bool = False,
        files: dict[str, str] | None = None,
        flags: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.module = module
        self.function = function
        self.served = served
        self.files = files or {}
        self.flags = flags


def _s3(module: str, function: str = "main", files: dict[str, str] | None = None) -> Tool:
    return Tool(AWS, module, function, served=True, files=files)


_INTO = {"1": WRITTEN}
_SHARDS = _s3("s3_ranges", "shard_reader", _INTO)
_CHUNKS = _s3("s3_ranges", "chunk_reader", _INTO)

#: By the name that scripts call.
TOOLS = {
    "pashlib": Tool(RUNTIME, "pashlib", served=True, files={"*": ""}),
    "punch-commit": Tool(RUNTIME, "commit", served=True),
    "s3-get-object.py": _s3("s3_get", files=_INTO),
    "s3-put-object.py": _s3("s3_put", files={"1": READ}),
    "s3-put-piece.py": _s3("s3_put_piece", files={"1": READ, "3": READ, "4": WRITTEN}),
    "s3-shard-reader.py": _SHARDS,
    "s3-shard-reader-direct.py": _SHARDS,
    "s3-chunk-reader-approx-correction.py": _CHUNKS,
    "s3-chunk-reader-smart-prealigned.py": _CHUNKS,
    "s3-chunk-reader-approx-tail-coord.py": _CHUNKS,
    "s3-read-several.py": _s3("s3_several", files={"0": WRITTEN}),
    "invoke-lambda.py": _s3("invoke_lambda"),
    "r_split": Tool(RUNTIME, "r_split", files={"0": READ, "2:": WRITTEN}, flags=("-r", "-c")),
    "r_wrap": Tool(RUNTIME, "r_wrap"),
    "r_unwrap": Tool(RUNTIME, "r_unwrap"),
    "r_merge": Tool(RUNTIME, "r_merge", files={"0:": READ}),
    "dgsh-tee": Tool(RUNTIME, "dgsh_tee", files={"-i": READ, "-o": WRITTEN}),
    "sh-reduce": Tool(RUNTIME, "sh_reduce", files={"1:": READ}),
    "split": Tool(RUNTIME, "split", files={"0": READ, "2:": WRITTEN}),
    "auto-split.sh": Tool(RUNTIME, "auto_split", files={"0": READ, "1:": WRITTEN}),
}

#: Under the engine the paths in the arguments are descriptors: what people call them.
NAMES: dict[str, str] = {}


def display_name(path: str) -> str:
    """The name by which people know a path from the arguments."""
    return NAMES.get(path, path)


def let_go(path: str) -> None:
    """Closes the engine's descriptor behind a path from the arguments: it has been opened anew."""
    if NAMES.pop(path, None) is not None:
        posix.close(int(path.rpartition("/")[2]))


def load(name: str) -> Main:
    """Imports a tool that the engine serves; its `main` takes arguments and returns the code."""
    tool = TOOLS[name]
    module = __import__(f"punchlib.runtime.{tool.module}", fromlist=[tool.function])
    main: Main = getattr(module, tool.function)
    return main


def paths(name: str, arguments: list[str]) -> list[tuple[int, str, str]]:
    """The files that a tool's arguments name.

    Returns:
        For each the index of its argument, the path, which that argument ends with, and `READ` or
        `WRITTEN`. Of arguments that the tool would refuse, what can be understood.
    """
    found = []
    tool = TOOLS[name]
    count = 0
    before = ""
    for index, argument in enumerate(arguments):
        path, use = argument, ""
        if "*" in tool.files:
            verb, _, rest = argument.partition("*")
            path = rest.split("*", 3)[3] if rest.count("*") > 2 else ""
            use = READ if verb == "send" else WRITTEN
        elif before.startswith("-") and before in tool.files:
            use = tool.files[before]
        elif argument not in tool.flags:
            use = tool.files.get(str(count), "") or _following(tool, count)
            count += 1
        if path and use:
            found.append((index, path, use))
        before = argument
    return found


def _following(tool: Tool, count: int) -> str:
    for place, use in tool.files.items():
        if place.endswith(":") and count >= int(place[:-1]):
            return use
    return ""
