"""What a pipeline says: read as bash reads it, or refused with its place."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from punchlib.errors import PunchError, UsageError
from punchlib.sh.object_patterns import ObjectPattern
from punchlib.sh.reading import read
from punchlib.sh.trial import ENV

VARIABLES = {"A": "one", "B": "two  words", "EMPTY": "", "STAR": "a*", "OPTS": "-r -n"}

WORDS = [
    "a", "'a b'", '"a b"', "a\\ b", "$A", '"$B"', "x$A-y", '"$A$B"', "$EMPTY", '"$EMPTY"', "''",
    "$OPTS", "${A}b", "${NOT:-x}", "${EMPTY:-y}", "${EMPTY-y}", "'$A'", '"\\$A"', "-d' '", "a#b",
    '"a\\nb"', "'\\n'", "é", '"$STAR"', "*.none", "*.txt", "[ab].txt", '"*".txt', "a\\*", "x=1",
    "$A$EMPTY", "'it'\\''s'", "$'a\\tb'", "!", "a,b", "{}", "%", "@", "a:b", "+",
]  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_words_as_bash_expands_them(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt", "c d.txt"):
        (tmp_path / name).touch()
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' x {word} | cat"],
        env={**ENV, **VARIABLES},
        capture_output=True,
        check=True,
    )
    got = read(f"printf x {word} | cat", VARIABLES).stages[0].words[1:]
    assert [w.encode() for w in got] == done.stdout.split(b"\0")[:-1]


def test_a_script() -> None:
    text = '# what it is for\nIN=a.txt  # here\nCOUNT=3\ncat "$IN" |\n  head -n $COUNT \\\n  >out\n'
    found = read(text, {})
    assert [stage.words for stage in found.stages] == [("cat", "a.txt"), ("head", "-n", "3")]
    assert (found.source, found.target) == (None, "out")


def test_redirections_and_variables_in_front() -> None:
    found = read("<in X='1 2' LC_ALL=C sort -r 2>/dev/null | cat >|out", {})
    assert (found.source, found.target) == ("in", "out")
    assert found.stages[0].env == (("X", "1 2"),)
    assert found.stages[0].quiet
    assert found.stages[0].text == "X='1 2' sort -r"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cat a | | sort", "line 1: Syntax error"),
        ("cat a\n| sort", 'line 2, column 1: Syntax error: "|" unexpected'),
        ('cat "a', "Unterminated quoted string"),
        ("comm a <(sort b)", "line 1, column 9"),
        ("cat a && cat b", "&&"),
        ("cat a; cat b", "list of commands"),
        ("cat a\ncat b", "line 2: a second pipeline"),
        ("cat a &", "background"),
        ("! cat a", "!"),
        ("if a; then b; fi", "if"),
        ("f() { a; }", "function"),
        ("(cat a) | sort", "subshell"),
        ("cat a | { sort; uniq; }", "line 1"),
        ("cat a | while read x; do echo $x; done", "loop"),
        ("cat $NOPE", "$NOPE is not set"),
        ("cat $1", "$1"),
        ("cat $B$A", "$B holds blanks"),
        ("cat $STAR", "$STAR holds a pattern"),
        ("cat `ls`", "command substitution"),
        ("cat $(ls)", "command substitution"),
        ("head -n $((1+2))", "arithmetic"),
        ("cat ${A#o}", "${A"),
        ("cat ~/x", "~"),
        ("printf a=~b", "~"),
        ("cat {a,b}", "{ … }"),
        ("cat s3://b/*.txt", "line 1: s3://b/*.txt: no bucket"),
        ("cat a 2>&1 | sort", "redirection"),
        ("cat a >b | sort", "redirection"),
        ("cat a | sort <b", "redirection"),
        ("sort >>b", "redirection"),
        ("sort <<E\nx\nE", "redirection"),
        ("LC_ALL=en_US.UTF-8 sort", "LC_ALL"),
        ("IFS=: ; sort", "line 1"),
        ("IFS=:\nsort", "IFS"),
        ("time sort", "'time'"),
        ("a+=b", "cannot be a command"),
        ("[[ a ]]", "cannot be a command"),
        ("$EMPTY", "empty"),
        ("", "no command"),
        ("# only this", "no command"),
        (">x", "without a command"),
        ("sort\0", "NUL"),
        ("sort \udcff", "UTF-8"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(text, VARIABLES)
    assert said in refused.value.message
    assert refused.value.exit_code == 2


@pytest.mark.hypothesis
@settings(max_examples=25, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab |<>&;()$`\"'\\\n#{}*=~-0é"), max_size=24))
def test_anything_is_read_or_refused(text: str) -> None:
    try:
        read(text, VARIABLES)
    except PunchError as error:
        assert error.message


KEYS = ["2026/1.gz", "2026/10.gz", "2026/.1.gz", "2026/x/1.gz", "2026/*.gz", "2025/1.gz", "\xe9.gz"]


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("s3://b/2026/*.gz", ["2026/*.gz", "2026/1.gz", "2026/10.gz"]),
        ("s3://b/2026/?.gz", ["2026/*.gz", "2026/1.gz"]),
        ("s3://b/202[56]/1*", ["2025/1.gz", "2026/1.gz", "2026/10.gz"]),
        ("s3://b/*/.1.gz", ["2026/.1.gz"]),
        ("s3://b/2026/'*'.g?", ["2026/*.gz"]),
        ("s3://b/*/*/*", ["2026/x/1.gz"]),
        ("s3://b/[!2]*", ["\xe9.gz"]),
    ],
)
def test_patterns_of_objects(word: str, found: list[str]) -> None:
    """As a shell has them for files (POSIX 2.13.3)."""
    asked = []

    def expand(pattern: ObjectPattern) -> list[str]:
        asked.append(pattern)
        return pattern.choose(KEYS)

    pipeline = read(f"cat {word} | sort", {}, expand)
    assert pipeline.stages[0].words[1:] == tuple(f"s3://b/{key}" for key in found)
    assert all(key.startswith(asked[0].prefix) for key in found)


def test_a_pattern_without_objects() -> None:
    with pytest.raises(UsageError, match=r"line 1: s3://b/z.*no such object"):
        read("cat s3://b/z*", {}, lambda pattern: pattern.choose(KEYS))
    with pytest.raises(UsageError, match="BUCKET"):
        read("cat s3://*/z", {}, lambda pattern: pattern.choose(KEYS))


def test_a_loop_is_a_pipeline_for_each_word() -> None:
    pipeline = read('for f in a "b c" $OPTS; do grep x "$f" | wc -l; done | sort >out', VARIABLES)
    words = ["a", "b c", *VARIABLES["OPTS"].split()]
    assert [turn.stages[0].words for turn in pipeline.each] == [("grep", "x", w) for w in words]
    assert [stage.words for stage in pipeline.stages] == [("sort",)]
    assert pipeline.target == "out"
    alone = read("for f in a; do cat $f; done >out", {})
    assert (alone.stages, alone.target, len(alone.each)) == ((), "out", 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("for f in a; do cat $f; done 2>x", "this redirection of a loop"),
        ("for f in a; do cat $f; sort $f; done", "more than one pipeline"),
        ("for f in a; do for g in b; do cat $g; done; done", "more than one pipeline"),
        ("for f in a; do cat $f >b; done", "> within a loop"),
        ("for f in; do cat a; done", "a loop over nothing"),
        ("cat a | for f in b; do cat $f; done", "a loop other than"),
        ("while true; do cat a; done", "a loop other than"),
        ("for f in a; do cat $f; done\ncat $f", "second pipeline"),
    ],
)
def test_loops_that_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(text, {})
