"""Each form of the table: joined outputs of pieces are what the real command gives for the whole.

Inputs and cuts are drawn: empty, without a final newline, NUL, CRLF, long lines, many equal lines,
bytes that are no UTF-8. Cuts are at the beginnings of lines, as the readers make them.
"""

from __future__ import annotations

import itertools
import os
import shlex
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from punchlib.sh.commands import form_of
from punchlib.sh.plan import make
from punchlib.sh.reading import Pipeline, Stage
from tests.support.sh_pieces import ran, result

EXAMPLES = int(os.environ.get("FUZZ", "0")) // 100 or 12

#: Accepted forms; a line of one command.
FORMS = r"""
cat
cat -u
tr a-z A-Z
tr -d aeiou
tr -d '\r'
tr -s ' '
tr -s '\n'
tr -s 'a\n'
tr -cs A-Za-z '\n'
tr -sc '[:alpha:]' '[\n*]'
tr ' ' '\n'
tr -s ' ' '\n'
tr -c a-z x
tr -cs a-z x
tr '\n' ' '
tr -d '\n'
tr -ds a '\n'
tr -cd 'a-z\n'
tr -cd a-z
tr '\000' '\n'
tr -C a-z x
tr -t abc xy
tr -st abn xyz
cut -c 1-3
cut -b 2-
cut -d ' ' -f 1
cut -d ' ' -f 2 -s
cut -f 1,3
cut -n -b 1-2
cut --fields=2 --delimiter=,
cut -d: -f1
rev
fold -w 5
fold
fold -b -w 3
fold -s -w 7
expand -t 4
expand
grep a
grep -v a
grep -i B
grep -c a
grep -vc a
grep -o 'a[a-z]*'
grep -E 'a|b'
grep -F 'a.'
grep -w the
grep -x ''
grep -e a -e b
grep -y B
grep -G 'a\+'
grep -h a
grep -s a
grep --count -i a
grep -a a
grep -ai 'b$'
grep '^$'
grep -v '^\s*$'
egrep 'x+|a{2}'
fgrep 1
sed s/a/b/
sed 's/a/b/g; y/bc/xy/'
sed 's/[^a-z]//g'
sed '/a/d'
sed -n '/a/p'
sed '/b/!d'
sed -n 's/a/&&/2p'
sed -E 's/(a+)(b*)/\2\1/'
sed -e 's/ /\n/g' -e '/^$/d'
sed 's;a;/;'
sed 's/\r$//'
sort
sort -r
sort -n
sort -rn
sort -f
sort -u
sort -uf
sort -un
sort -s -k1,1
sort -k1,1n
sort -k1,1rn -k2
sort -k2
sort -t, -k2,2
sort -t ' ' -k 2n -u
sort -b -d
sort -h
sort -V
sort -M
sort --reverse --key=2,2 --field-separator=,
sort -rs -k1.2,1.3
uniq
uniq -i
uniq -f 1
uniq -s 2
uniq -w 1
uniq -c
uniq --ignore-case
wc
wc -l
wc -w
wc -c
wc -lw
wc -m
wc --lines --bytes
head
head -n 3
head -1
head -n 0
head -q -n 2
head --lines=2
tail
tail -n 2
tail -n 0
tail -q -n 1
tail -1
awk '{print $1}'
awk '{print $2, $1}'
awk '{print $NF}'
awk '{ print }'
awk -F, '{print $2}'
awk NF
awk 'NF > 1'
awk 'length($0) > 3'
awk '$1 == "a" {print $2}'
awk '$1 > 1'
awk '/ab/'
awk '!seen[$0]++'
"""

#: What runs after `sort` on pieces, too.
PAIRS = r"""
sort | head -n 2
sort -u | head -n 2
sort -s -k1,1 | head -n 3
sort -u -k1,1 | head -n 1
sort -rn | uniq
sort -k2 | uniq
sort -f | uniq
sort | uniq
sort | uniq -c
sort -r | uniq -c
sort -k1,1 | uniq -c
sort -f | uniq -c
tr -cs A-Za-z '\n' | sort | uniq -c
sed s/b/a/ | tr -s 'a\n' | grep -a . | sort -u
cut -d ' ' -f 2 | tr -s '\n' | uniq -c
grep -a a | tr -s '\n' | uniq -c
sed -n /a/p | tr -cs A-Za-z '\n' | sort
tr -d '\n' | wc -c
tr ' ' '\n' | head -n 3 | sort
awk '!s[$0]++' | tail -n 2
"""

_WORDS = st.sampled_from(
    [b"a", b"b", b"ab", b"aab", b"the", b"The", b"10", b"9", b"-1", b"2K", b"Jan", b"a.b", b"x,y",
     b"", b"  ", b"\t", b"\xff\xe9", b"\r", b"a:b", b"X" * 300, b"1", b"b", b"aa"]
)  # fmt: skip
_LINE = st.lists(_WORDS, max_size=4).map(b" ".join) | st.sampled_from([b"", b"a", b"a b", b"A b"])
_RARE = st.sampled_from([b""] * 9 + [b"\0", b"a\0b"])
LINES = st.tuples(
    st.lists(st.tuples(_LINE, _RARE).map(b"".join), max_size=14)
    | st.lists(st.sampled_from([b"a", b"b", b""]), max_size=14),
    st.booleans(),
)
CUTS = st.lists(st.integers(0, 14), min_size=1, max_size=3)


def pieces_of(drawn: tuple[list[bytes], bool], cuts: list[int]) -> list[bytes]:
    lines = [line + b"\n" for line in drawn[0]]
    if lines and drawn[1] and lines[-1] != b"\n":
        lines[-1] = lines[-1][:-1]
    at = [0, *sorted(min(cut, len(lines)) for cut in cuts), len(lines)]
    return [b"".join(lines[a:b]) for a, b in itertools.pairwise(at)]


@pytest.mark.hypothesis
@pytest.mark.parametrize("text", [*FORMS.strip().splitlines(), *PAIRS.strip().splitlines()])
def test_pieces_are_the_whole(text: str, tmp_path: Path) -> None:
    stages = [tuple(shlex.split(part)) for part in text.split(" | ")]
    for words in stages:
        assert form_of(words).split is not None, form_of(words).why
    # Behind `cat`, so that it is not the first: several counts of a file have other widths.
    plan = make(Pipeline((Stage(("cat",)), *map(Stage, stages))))
    assert plan.mapped or stages[0][0] == "cat"

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(LINES, CUTS)
    def prove(drawn: tuple[list[bytes], bool], cuts: list[int]) -> None:
        pieces = pieces_of(drawn, cuts)
        got = result(plan, pieces, tmp_path)
        expected, status = b"".join(pieces), 0
        for words in stages:
            expected, status = ran(words, expected)
        if got is None:
            assert b"\0" in b"".join(pieces) or status not in (0, 1)
        else:
            assert got == expected

    prove()


@pytest.mark.parametrize(
    "text",
    [
        "tr", "tr -ds '\\n' a", "sed 2d", "sed -n '$p'", "sed 10q", "sed '1,3d'", "sed 'N;P;D'",
        "sed s//x/", "sed 's/a/b/w f'", "sed -i s/a/b/", "sed 'a\\x'", "sed '/a/,/b/d'", "sed =",
        "sed -f x", "sed -z s/a/b/", "sed 's/[/]/x/'", "grep -n a", "grep -m 1 a", "grep -A 1 a",
        "grep -q a", "grep -b a", "grep -z a", "grep -f x", "grep -C1 a", "grep -L a",
        "grep -r a .", "grep a b c", "sort -R", "sort -c", "sort -o x", "sort -z", "sort -m a b",
        "sort -g",
        "uniq -d", "uniq -u", "uniq -D", "uniq -ci", "uniq -z", "wc -L", "wc file", "head -c 5",
        "head -n -1", "tail -n +2", "tail -f", "tail -c 3", "tail +2", "cut -z -f1",
        "cut -d ab -f1", "awk '{print NR}'", "awk 'END {print n}'", "awk '{s += $1} END {print s}'",
        "awk 'NR > 1'",
        "awk '{print $1 > \"f\"}'", "awk '{getline; print}'", "awk -v x=1 '{print $1}'",
        "awk 'x != $1'", "awk 'BEGIN {print}'", "nl", "paste - -", "tac", "fmt", "shuf", "xargs",
        "cat -n", "cat - -", "zcat", "tee x", "jq .", "perl -pe s/a/b/", "rev -0",
    ],
)  # fmt: skip
def test_what_looks_beyond_the_line_is_not_cut(text: str) -> None:
    form = form_of(tuple(shlex.split(text)))
    assert form.split is None
    assert form.why
