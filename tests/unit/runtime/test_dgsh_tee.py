"""dgsh-tee's command line."""

from __future__ import annotations

import pytest

from punchlib.errors import UsageError
from punchlib.runtime.dgsh_tee import parse


def test_every_option_of_the_generated_scripts() -> None:
    args = [
        "-i",
        "#fifo1",
        "-o",
        "a b",
        "-o",
        "#fifo2",
        "-I",
        "-m",
        "1G",
        "-b5M",
        "-fM",
        "-T",
        "/x",
    ]
    options = parse(args)
    assert options.source == "#fifo1"
    assert options.targets == ["a b", "#fifo2"]
    assert options.eager
    assert options.report
    assert options.memory == 1 << 30
    assert options.buffer <= 5 << 20
    assert options.folder == "/x"


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["-o", "x", "-q"], "-q"),
        (["-o"], "-o needs a value"),
        (["-o", "x", "-m", "5X"], "'5X'"),
        (["-o", "x", "-b", "0"], "'0'"),
        (["-o", "x", "stray"], "'stray'"),
        (["-I"], "no output"),
    ],
)
def test_wrong_arguments_are_named(args: list[str], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        parse(args)
