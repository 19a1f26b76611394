"""The shell reader against bash, and against any text."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchlib.jobs.shell_words import NotUnderstoodError, commands
from punchlib.jobs.streams import read

#: Pieces whose value no expansion decides.
_PLAIN = st.text("abcXYZ019_./:=,+@%*?^!-[]{}é", min_size=1) | st.just("a#")
_SINGLE = st.text('ab c"$`\\|&;<>()#\n\t', max_size=8).map(lambda text: f"'{text}'")
_DOUBLE = st.lists(
    st.text("ab c'|&;<>()#\n\t", min_size=1, max_size=4)
    | st.sampled_from(['\\"', "\\$", "\\`", "\\\\", "\\a", "\\\n"]),
    max_size=5,
).map(lambda parts: f'"{"".join(parts)}"')
_ESCAPED = st.sampled_from(" \t'\"$`\\|&;<>()#\nab").map(lambda char: f"\\{char}")
_WORD = st.lists(_PLAIN | _SINGLE | _DOUBLE | _ESCAPED, min_size=1, max_size=4).map("".join)
_BLANK = st.sampled_from([" ", "\t", "  ", " \\\n"])


@given(st.lists(st.tuples(_BLANK, _WORD), max_size=6))
def test_words_are_those_of_bash(words: list[tuple[str, str]]) -> None:
    script = "printf %s\\\\0" + "".join(blank + word for blank, word in words)
    done = subprocess.run(
        ["bash", "-c", f"set -f +B; {script}"],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8"},
    )
    theirs = done.stdout.decode().split("\0")[:-1]
    [ours] = commands(script)
    assert all(word.literal for word in ours.words)
    assert [word.text for word in ours.words[2:]] == (theirs if len(ours.words) > 2 else [])


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ("a; b && c || d | e & f", "abcdef"),
        ("if a; then b; else c; fi", "abc"),
        ("while ! a; do { b; }; done", "ab"),
        ("x=1 a >f 2>&1 <g", "a"),
        ("a <(b) >(c)", "abc"),
        ("a # b\nc", "ac"),
    ],
)
def test_commands_of_a_script(script: str, names: str) -> None:
    assert [c.name for c in commands(script) if c.name] == list(names)


#: What makes a reader of shell stumble, and anything else.
_SHELL = st.lists(
    st.sampled_from(list("'\"$`\\\n (){}<>#;&|!=[]~*?\t\r\0\ud800"))
    | st.sampled_from(["<<", "<<-", "<<<", "<(", ">(", "$(", "${", "$((", "))", "$'", "<<EOF\n"])
    | st.sampled_from(["EOF", ";;", "&&", "||", "|&", "+=", "2>", "2>&1", "&>", "&>>", "f() {"])
    | st.sampled_from(["if", "then", "fi", "do", "done", "case", "esac", "function", "time"])
    | st.sampled_from(["mkfifo", "f", "cat", "sort", "runtime/r_split -r", "dgsh-tee -i f -o g"])
    | st.sampled_from(["pashlib", "send*k*0*1*f", "recv*k*1*0*f", "LC_ALL=", "export", "-"])
    | st.text(max_size=3),
    max_size=40,
)


@given(_SHELL, st.sampled_from(["", " "]))
def test_any_text_is_read_or_not_understood(pieces: list[str], between: str) -> None:
    text = between.join(pieces)
    try:
        found = commands(text)
    except NotUnderstoodError as error:
        assert str(error)
    else:
        assert all(c.words or c.assignments or c.redirections for c in found)


@given(_SHELL)
def test_any_script_can_be_looked_at_for_streams(pieces: list[str]) -> None:
    """Whatever it is: it has a reading, or says that it has none; it never stops the checks."""
    read(" ".join(pieces))
