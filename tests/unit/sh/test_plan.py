"""Whole pipelines on pieces, without a network: byte for byte what bash gives under LC_ALL=C."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from punchlib.errors import UsageError
from punchlib.runtime import layout
from punchlib.sh import plan as planning
from punchlib.sh.commands import form_of
from punchlib.sh.forms import MAY_SAY_ONE
from punchlib.sh.reading import read
from punchlib.sh.trial import ENV, result
from tests.support.sh_files import write_files
from tests.support.sh_pipelines import PIPELINES
from tests.support.tiers import quick

#: In the order of the wait script.
HARMLESS = ("grep", "egrep", "fgrep", "zgrep", "comm", "diff", "cmp")


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("width", quick([3, 1, 2, 8, 16], 1))
def test_as_bash(name: str, width: int, tmp_path: Path) -> None:
    text, shared = PIPELINES[name]
    files = write_files(tmp_path)
    plan = planning.make(read(text, files), whole="open" if name == "cat-of-open" else "")
    assert sum(told.how != "in one piece" for told in plan.told) == shared
    data = b"".join(Path(name).read_bytes() for name in plan.inputs or ())
    lines = data.replace(b"\n", b"\n\0\1").split(b"\0\1")
    step = -(-len(lines) // width)
    pieces = [b"".join(lines[at * step : (at + 1) * step]) for at in range(width)]
    done = subprocess.run(
        ["bash", "-c", text], env={**ENV, **files}, capture_output=True, check=False
    )
    assert result(plan, pieces if plan.mapped else [data]) == done.stdout


def test_most_stages_run_on_pieces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write_files(tmp_path)
    plans = [planning.make(read(text, files)) for text, _ in PIPELINES.values()]
    told = [t for plan in plans for t in plan.told]
    shared = sum(t.how != "in one piece" for t in told)
    with capsys.disabled():
        print(f"\n{len(plans)} pipelines: {shared} of {len(told)} stages run on pieces")
    assert shared > len(told) * 0.6


def test_it_tells_how_and_why() -> None:
    plan = planning.make(read("tr a b | sort | uniq -c | nl | cat", {}))
    assert [t.how for t in plan.told] == [
        "on each piece",
        "on each piece, then joined",
        "on each piece, then joined",
        "in one piece",
        "in one piece",
    ]
    assert plan.told[3].why == "nl: it counts lines from the first"
    assert all(t.why for t in plan.told)


def test_no_work_no_workers() -> None:
    assert planning.make(read("cat a | nl", {})).mapped == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cat a | sort FILE", "reads FILE and not the pipe"),
        ("wc -lw", "cat FILE | wc"),
        ("cat a | nl FILE", "FILE would not be where this runs"),
        ("nl FILE", "FILE would not be where this runs"),
        ("cat a | jq -s . s3://b/k", "s3://b/k would not be where this runs"),
        ("cat a | diff - FILE", "diff - FILE may write names of files"),
        ("cat a | diff -au - FILE", "diff -au - FILE may write names of files"),
        ("cat a | diff -a -q - FILE", "diff -a -q - FILE may write names of files"),
    ],
)
def test_files_that_are_not_there(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    with pytest.raises(UsageError, match=shlex.quote(said).strip("'")) as refused:
        planning.make(read(text, {}))
    assert refused.value.next_step


def test_what_workers_put_into_an_object_themselves() -> None:
    """What they write, one after the other, and nothing that has to be joined or go elsewhere."""
    for line, puts in (
        ("cat a | tr x y > s3://b/k", True),
        ("zcat a | grep x > s3://b/k", True),
        ("cat a | tr x y > k", False),
        ("cat a | tr x y", False),
        ("cat a | sort > s3://b/k", False),
        ("cat a | tr x y | nl > s3://b/k", False),
        ("cat a | nl > s3://b/k", False),
    ):
        plan = planning.make(read(line, {}))
        assert plan.puts_pieces is puts, line
        assert (plan.told[-1].text == "> s3://b/k") is puts


def test_the_wait_script_has_the_same_harmless_commands() -> None:
    text = (Path(layout.__file__).parent / layout.WAIT_SCRIPT).read_text()
    assert f"{' | '.join(HARMLESS)}) __punch_harmless=1" in text
    assert set(HARMLESS) == MAY_SAY_ONE


@pytest.mark.parametrize(
    "command",
    [
        "tr abc -d",  # behind an operand it is one, too
        "tr a -- b",
        "awk '{print $1}' -F,",
        "wc -l -",  # which it prints
        "awk 'NR==1{print FILENAME}' f",  # a worker has it from stdin
    ],
)
def test_it_runs_in_its_own_words(command: str) -> None:
    words = tuple(shlex.split(command))
    form = form_of(words)
    assert (form.words, form.split, form.known) == (words, None, False)


@pytest.mark.parametrize(
    "program",
    [r'{printf "%s\\n", $1}', r'{printf ("a\n") "y"}', "1; $4 > 5 {n++} END {print n + 0}"],
)
def test_awk_programs_that_only_look_as_if_they_kept_lines(program: str) -> None:
    form = form_of(("awk", program))
    assert form.split is None or not form.split.keeps_lines


def test_a_redirection_is_what_cat_calls_stdin() -> None:
    assert planning.make(read("cat f - < b", {})).inputs == ("f", "b")
