"""Each form of the table is proven with the real command (punchlib/sh/proof.py)."""

from __future__ import annotations

import os
import shlex

import pytest

from punchlib.sh.commands import form_of
from punchlib.sh.proof import prove
from punchlib.sh.trial import ran

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
tac
tac -
uniq -d
uniq -u
uniq --repeated
wc -L
wc --chars
wc --max-line-length
unexpand
unexpand -a
unexpand -t 2
col -b
col -bx
col -x
cut --complement -d ' ' -f 1
cut -d ' ' -f 1,2 --output-delimiter=--
grep -m 1 a
grep -m 2 -v a
grep -m 0 a
grep -a --max-count=2 b
grep -E '(^| )a( |$)'
sed 's/A/x/I'
sed 's/the/x/Ig'
sed '/THE/Id'
sed G
sed '/^$/d; G'
iconv -f UTF-8 -t LATIN1
iconv -f LATIN1 -t UTF-8
iconv -f utf8 -t ASCII
iconv -f CP1252 -t ISO-8859-15
iconv --from-code=KOI8-R --to-code=UTF-8
iconv -f UTF-8 -t UTF-8
iconv -f ASCII -t CP437
xargs -r -n1
xargs -r -n 1 echo
xargs -n1 -r echo x
xargs -rn1 basename
xargs -I{} echo {}
xargs -I {} echo x {} y {}
xargs -I% dirname %
xargs -I{} basename {}
xargs -r -d '\n' -n1 echo
xargs -d '\n' -I{} echo a{}
xargs -r -n1 printf '%s\n'
xargs -r -n1 printf 'word %s=%s\n' x
xargs -I{} printf '%s,%s\n' {} {}
xargs --no-run-if-empty --max-args=1 dirname
jq .
jq -c .
jq -c .a
jq .a.b
jq -c 'select(.a == 1)'
jq -c 'select(.a.b > 1 and .b != "x")'
jq -r .b
jq -c '{a, b}'
jq -c '{x: .a, b}'
jq -c '.a[]'
jq -c '.a[0]'
jq -r '[.a, .b] | @tsv'
jq -rS '.a | .b'
jq 'select(.a) | keys'
jq --compact-output --sort-keys .
awk 1
awk '{$1 = ""} 1'
awk '{print $1 "-" $2}'
awk '{print $NF, $(NF-1)}'
awk '{print NF}'
awk '{print length($0), $0}'
awk '{print tolower($0)}'
awk '{print toupper(substr($1, 1, 1)) substr($1, 2)}'
awk '{print substr($0, 2, 3)}'
awk '{gsub(/a/, "b"); print}'
awk '{sub(/[ab]+$/, "<&>"); print}'
awk '{gsub(/[^[:alpha:]]/, "", $1); print $1}'
awk '{gsub(/a/, "b")} 1'
awk '{printf "%s\n", $1}'
awk '{printf("%-5s|%d\n", $1, $2)}'
awk '{printf "%s ", $1}'
awk '/a/ && NF > 1 {print $2}'
awk '$1 == "a" || $2 ~ /^b/'
awk '!/a/'
awk '$1 > 1 {print $1 * 2}'
awk '{if ($1 > 1) print $1; else print "small"}'
awk '/a/ {next} {print}'
awk '/a/{print "A"} /b/{print "B"}'
awk '{for (i = 1; i <= NF; i++) print $i}'
awk '{for (i = NF; i > 0; i--) printf "%s ", $i; print ""}'
awk 'NF > 1 {for (i=1; i<NF; i++) print $i, $(i+1)}'
awk '{for (i = 1; i <= NF - 1; i++) print $i, $(i+1)}'
awk -v OFS='\t' '{print $1, $2}'
awk 'BEGIN {FS = ","; OFS = "-"} {print $2, $1}'
awk 'BEGIN{FS=":"}{print $1}'
awk '{$2 = $1; print}'
awk '{NF = 1; print}'
awk '{print index($0, "b"), int($1)}'
awk 'NF % 2 == 0'
awk '!s[$1]++'
awk -F, '!seen[$2]++'
awk 'END {print NR}'
awk '/a/ {n++} END {print n + 0}'
awk '{n += 1} END {print n+0}'
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
sort | uniq -d
sort | uniq -u
sort -r | uniq -d
cut -d ' ' -f 1 | sort | uniq -u
grep -a a | uniq -d
sort -r | uniq -u
tr ' ' '\n' | tac
xargs -r -n1 | sort | uniq -d
awk '{print $2}' | awk 'END {print NR}'
sed G | tr -s '\n' | tac
awk '{print NF}' | tr -s '1\n' | sort | uniq -c
iconv -f LATIN1 -t UTF-8 | grep -a a | wc -L
"""


@pytest.mark.hypothesis
@pytest.mark.parametrize("text", [*FORMS.strip().splitlines(), *PAIRS.strip().splitlines()])
def test_pieces_are_the_whole(text: str) -> None:
    stages = [tuple(shlex.split(part)) for part in _parts(text)]
    for words in stages:
        assert form_of(words).split is not None, form_of(words).why
    prove(stages, EXAMPLES)


def _parts(text: str) -> list[str]:
    """Its stages; jq has bars of its own."""
    return [text] if text.startswith("jq") else text.split(" | ")


@pytest.mark.parametrize(
    "text",
    [
        "tr", "tr -ds '\\n' a", "sed 2d", "sed -n '$p'", "sed 10q", "sed '1,3d'", "sed 'N;P;D'",
        "sed s//x/", "sed 's/a/b/w f'", "sed -i s/a/b/", "sed 'a\\x'", "sed '/a/,/b/d'", "sed =",
        "sed -f x", "sed -z s/a/b/", "sed 's/[/]/x/'", "grep -n a", "grep -cm1 a", "grep -om1 a",
        "grep -m -1 a", "grep -A 1 a",
        "grep -q a", "grep -b a", "grep -z a", "grep -f x", "grep -C1 a", "grep -L a",
        "grep -r a .", "grep a b c", "sort -R", "sort -c", "sort -o x", "sort -z", "sort -m a b",
        "sort -g", "uniq -D", "uniq -du", "uniq -dc", "uniq -di", "uniq -u -f1", "uniq --group",
        "uniq -ci", "uniq -z", "wc -lL", "wc file", "head -c 5", "tac -s x", "tac -b", "tac a b",
        "head -n -1", "tail -n +2", "tail -f", "tail -c 3", "tail +2", "cut -z -f1",
        "cut -d ab -f1", "awk '{print NR}'", "awk 'END {print n}'", "awk '{s += $1} END {print s}'",
        "awk 'NR > 1'",
        "awk '{print $1 > \"f\"}'", "awk '{getline; print}'", "awk -v x=1 '{print $1}'",
        "awk 'x != $1'", "awk 'BEGIN {print}'", "nl", "paste - -", "paste -s", "fmt", "shuf",
        "cat -n", "cat - -", "zcat", "tee x", "perl -pe s/a/b/", "rev -0", "pr", "column -t",
        "split", "csplit - /a/", "sort -C", "tail -n +1", "head -n -0", "sed 's/a/b/w /dev/stdout'",
        "sed 'G;h'", "sed 'x;G'", "grep -P a",
        # awk that keeps something, or looks as if it did not
        "awk '{print $1 > $2}'", "awk '{print(1) > \"f\"}'", "awk '{print | \"sort\"}'",
        "awk '{x = $1; print x}'", "awk '{print i}'", "awk '$1 / NR / 2'",
        "awk '{print $1 / NR /1}'",
        "awk '{n++} END {print n}'", "awk '{n += $1} END {print n + 0}'", "awk '{s[$1]++}'",
        "awk '{for (i = 1; i < 3; i++) x = x $i; print x}'",
        "awk 'i > 1 {for(i=1;i<=NF;i++) print}'",
        "awk '{printf \"%s\", rand()}'", "awk '/a/,/b/'", "awk '$1, $2 {print}'",
        "awk '{RS = \"x\"; print}'",
        "awk 'BEGIN {RS = \",\"} {print}'", "awk '/[/]/ {print} /]/'", "awk '{exit}'",
        "awk 'NR == 1, /x/'", "awk '{print FILENAME}'", "awk -v OFS=x -v n=1 1",
        "awk '{nextfile}'", "awk 'END {print NR, $0}'", "awk '{getline < \"f\"} 1'",
        "awk '{print} # x\n{n}'", "awk '{system(\"x\")}'", "awk '!NR[$0]++'", "awk '!s[$0 x]++'",
        "iconv -t UTF-8", "iconv -f UTF-16 -t UTF-8", "iconv -c -f UTF-8 -t ASCII",
        "iconv -f UTF-8 -t ASCII//TRANSLIT", "iconv -f ISO-2022-JP -t UTF-8",
        "iconv -f CP1258 -t UTF-8",
        "iconv -f UTF-8 -t UCS-2", "iconv -f ISO-8859-12 -t UTF-8", "iconv -f CP1255 -t UTF-8",
        "xargs", "xargs -n1", "xargs -n1 echo", "xargs -r echo", "xargs -rn2 echo", "xargs -0 -rn1",
        "xargs -L1 -r echo", "xargs -rn1 rm", "xargs -rn1 echo -n", "xargs -rn1 echo -e x",
        "xargs -I{} echo {} x", "xargs -I{} basename {} .txt", "xargs -rn1 basename -a",
        "xargs -Io echo o", "xargs -I basename basename", "xargs -I{} printf {}",
        "xargs -rn1 printf", "xargs -rn1 printf '%s'",
        "xargs -P2 -rn1 echo",
        "xargs -I{} sh -c 'echo {}'", "xargs -rn1 cat", "xargs -a f -rn1 echo",
        "xargs -d x -rn1 echo",
        "xargs -rn1 -I{} echo {}", "xargs -rn1 grep a", "xargs -rn1 printf '%b\\n'",
        "jq -s .", "jq -n input", "jq -n '[inputs]'", "jq input", "jq '[., input]'", "jq -j .a",
        "jq 'input_line_number'", "jq --seq .", "jq --stream .", "jq -e .a", "jq .a -", "jq -R .",
        "jq 'limit(1; .a)'", "jq '$ENV'", "jq 'reduce inputs as $x (0; .)'", "jq --tab .", "jq",
        "jq 'halt'", "jq --slurp .", "jq '..a'", "jq -f x", "jq 'debug'",
        "cut -d, -f1 --output-delimiter '\n'",
    ],
)  # fmt: skip
def test_what_looks_beyond_the_line_is_not_cut(text: str) -> None:
    form = form_of(tuple(shlex.split(text)))
    assert form.split is None
    assert form.why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("fmt -w 20", "fmt: paragraphs may cross the cut"),
        ("grep -n a", "grep -n: it counts lines from the first"),
        ("tail -n +2", "tail -n +N: it counts lines from the first"),
        (
            "xargs -n1 echo",
            "xargs without -r: without -r it runs once even for nothing: say xargs -r",
        ),
        ("awk '{s += $5} END {print s}'", "a sum of fractions depends on the order of its parts"),
        ("awk 'NR > 1'", "NR counts from the first line"),
        ("mytool x", "mytool is not in the table"),
    ],
)
def test_why_a_form_runs_in_one_piece(text: str, why: str) -> None:
    assert form_of(tuple(shlex.split(text))).why == why


def test_a_text_over_lines_fails_on_pieces_and_gives_no_other_bytes() -> None:
    words = ("jq", "-c", ".a")
    assert ran(words, b'{"a":\n1}\n') == b"1\n"
    assert ran(words, b'{"a":\n') is None
