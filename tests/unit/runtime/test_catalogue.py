"""The one table of tools: which arguments are files, and that all of it is there."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from punchlib.runtime import catalogue
from punchlib.runtime.catalogue import READ, TOOLS, WRITTEN


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("pashlib send*k*0*1*/t/#f1 recv*k*1*0*a*b", [(0, "/t/#f1", READ), (1, "a*b", WRITTEN)]),
        ("pashlib send*k*0*1 nonsense", []),
        ("s3-get-object.py key out bytes=0-9", [(1, "out", WRITTEN)]),
        ("s3-get-object.py 1 out", [(1, "out", WRITTEN)]),
        ("s3-get-object.py key", []),
        ("s3-put-object.py /dev/null in $1", [(1, "in", READ)]),
        ("s3-shard-reader-direct.py key out bytes=0-9 shard=1", [(1, "out", WRITTEN)]),
        ("s3-chunk-reader-smart-prealigned.py key out []", [(1, "out", WRITTEN)]),
        ("invoke-lambda.py id folder lambda", []),
        ("punch-commit complete folder", []),
        (
            "dgsh-tee -i a -o b -I -b 5M -o c",
            [(1, "a", READ), (3, "b", WRITTEN), (8, "c", WRITTEN)],
        ),
        ("r_split -r in 1000 a b", [(1, "in", READ), (3, "a", WRITTEN), (4, "b", WRITTEN)]),
        ("r_split in 1000 a", [(0, "in", READ), (2, "a", WRITTEN)]),
        ("split in 10 a b", [(0, "in", READ), (2, "a", WRITTEN), (3, "b", WRITTEN)]),
        ("auto-split.sh in a b", [(0, "in", READ), (1, "a", WRITTEN), (2, "b", WRITTEN)]),
        ("r_merge a b", [(0, "a", READ), (1, "b", READ)]),
        ("r_wrap bash -c x", []),
    ],
)
def test_which_arguments_are_files(line: str, wanted: list[tuple[int, str, str]]) -> None:
    name, *arguments = line.split()
    found = catalogue.paths(name, arguments)
    assert found == wanted
    assert all(arguments[index].endswith(path) for index, path, _ in found)


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_has_its_function(name: str) -> None:
    tool = TOOLS[name]
    assert callable(getattr(import_module(f"punchlib.runtime.{tool.module}"), tool.function))


def imported_by(module: str) -> set[str]:
    """What of others' a tool's start imports."""
    code = (
        "import sys; sys.path.insert(0, '.'); before = set(sys.modules)\n"
        f"import punchlib.runtime.{module}\n"
        "print(*(n for n in set(sys.modules) - before if not n.startswith('punchlib')))"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", sorted({t.module for t in TOOLS.values() if not t.served}))
def test_what_starts_a_scripts_every_stage_imports_nothing_that_is_slow(module: str) -> None:
    """Each of these takes more than all that a tool needs; a wide job starts hundreds of tools."""
    assert not imported_by(module) & {"asyncio", "dataclasses", "inspect", "re", "ssl", "typing"}


def test_the_client_that_reads_it_imports_only_what_is_built_in() -> None:
    new = imported_by("engine_client")
    # An extension, where the interpreter has it as one.
    assert new <= {*sys.builtin_module_names, "__future__", "_socket"}, new
