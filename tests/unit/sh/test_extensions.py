"""Commands of a user's own: the file, its faults, and when a proof holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from punchlib.cli import sh_commands
from punchlib.cli.sh_commands import own_forms, prove_commands
from punchlib.errors import PunchError, UsageError
from punchlib.sh import extensions
from punchlib.sh.plan import make
from punchlib.sh.reading import Pipeline, Stage


def entry(words: str, rest: str = 'class = "stateless"') -> str:
    return f"[[command]]\nwords = {words}\n{rest}\n"


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that is no command of the table, in $PATH; what is kept is kept here."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sh_commands, "EXAMPLES", 40)
    monkeypatch.setattr(sh_commands, "FEWEST", 5)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mytool"
    file.write_text('#!/bin/sh\nexec sed "$@"\n')
    file.chmod(0o755)
    return file


def commands(tool: Path, text: str) -> Path:
    file = tool.with_name("commands.toml")
    file.write_text(text.replace("TOOL", str(tool)))
    return file


def how(tool: Path, file: Path | None, *arguments: str) -> tuple[str, str]:
    stages = (Stage(("cat", "x")), Stage((str(tool), *arguments)))
    told = make(Pipeline(stages), more=own_forms(file)).told[1]
    return told.how, told.why


def test_only_what_is_proven_runs_on_pieces(
    tool: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    text = entry('["TOOL", "s/a/b/"]', 'class = "stateless"\nwhy = "it is sed"')
    file = commands(tool, text)
    assert how(tool, file, "s/a/b/") == ("in one piece", "not proven: punch sh --prove")
    prove_commands(file)
    assert capfdbinary.readouterr().out == f"proven: {tool} s/a/b/\n".encode()
    assert how(tool, file, "s/a/b/") == ("on each piece", "it is sed")
    assert how(tool, file, "s/a/c/")[0] == "in one piece"
    # Neither the file nor the program may have changed.
    tool.write_text(tool.read_text() + "# newer\n")
    assert how(tool, file, "s/a/b/")[1] == "not proven: punch sh --prove"
    prove_commands(file)
    commands(tool, text + "# newer\n")
    assert how(tool, file, "s/a/b/")[1] == "not proven: punch sh --prove"


def test_the_users_file_is_found(tool: Path) -> None:
    assert own_forms(None) == {}
    default = extensions.default_file()
    default.parent.mkdir(parents=True)
    commands(tool, entry('["TOOL"]')).rename(default)
    assert how(tool, None) == ("in one piece", "not proven: punch sh --prove")


def test_outputs_that_another_command_joins(tool: Path) -> None:
    tool.write_text('#!/bin/sh\nexec sort "$@"\n')
    joined = 'class = "joined"\ngather = ["sort", "-m", "-n"]\nmerges = true'
    file = commands(tool, entry('["TOOL", "-n"]', joined))
    prove_commands(file)
    assert how(tool, file, "-n") == ("on each piece, then joined", "joined")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("exec nl", "is not the same on pieces\n  the pieces       "),
        ("exec tr '\\n' ' '", "leaves no whole lines"),
        ("exec paste -s", "is not the same on pieces"),
        ("exec date +%N", "is not the same"),
        ("exit 3", "nothing is proven by that"),
    ],
)
def test_what_is_not_so_is_shown_by_an_example(program: str, said: str, tool: Path) -> None:
    tool.write_text(f"#!/bin/sh\n{program}\n")
    file = commands(tool, entry('["TOOL"]'))
    with pytest.raises(PunchError) as failed:
        prove_commands(file)
    assert said in failed.value.message
    assert failed.value.exit_code == 1
    assert len(failed.value.message) < 2000
    assert how(tool, file)[1] == "not proven: punch sh --prove"


def test_one_that_fails_does_not_keep_others_from_it(tool: Path) -> None:
    file = commands(tool, entry('["TOOL", "2d"]') + entry('["TOOL", "-u", "/a/d"]'))
    with pytest.raises(PunchError, match="2d is not the same on pieces"):
        prove_commands(file)
    assert how(tool, file, "-u", "/a/d")[0] == "on each piece"
    assert how(tool, file, "2d")[0] == "in one piece"


def test_a_file_among_the_words_is_not_on_the_workers(tool: Path) -> None:
    tool.with_name("rules").write_text("s/a/b/\n")
    file = commands(tool, entry('["TOOL", "-f", "rules"]'))
    with pytest.raises(UsageError, match="rules would not be where this runs"):
        prove_commands(file)


@pytest.mark.parametrize(
    "kept", ["", "[]", '{"version": 2}', '{"version": 1, "proven": 3}', "\xff"]
)
def test_a_state_file_that_says_nothing_proves_nothing(kept: str, tool: Path) -> None:
    state = tool.with_name("state") / "punch"
    state.mkdir(parents=True)
    (state / "proven.json").write_text(kept, encoding="latin-1")
    file = commands(tool, entry('["TOOL", "p"]'))
    assert how(tool, file, "p")[0] == "in one piece"
    prove_commands(file)
    assert how(tool, file, "p")[0] == "on each piece"
    assert json.loads((state / "proven.json").read_text())["version"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("words =", "commands.toml is no TOML"),
        ("\xff", "commands.toml is no valid UTF-8"),
        ("x = 1", "commands.toml: x is not known"),
        ("command = 1", "commands.toml: command is no list"),
        ("command = [1]", "command 1: is no table"),
        (entry('["a"]') + entry('["b"]', 'klass = "x"'), "command 2: klass is not known"),
        (entry('"a"'), "command 1: words is no list"),
        (entry("[]"), "command 1: words is no list of words"),
        (entry('["a", 1]'), "command 1: words is no list of words"),
        (entry('[""]'), "command 1: words is no list of words"),
        ('[[command]]\nclass = "joined"', "command 1: words is no list of words"),
        (entry('["a"]', 'class = "other"'), "command 1: class is neither"),
        (entry('["a"]', ""), "command 1: class is neither"),
        (entry('["a"]', 'class = "joined"'), "command 1: gather is no list of words"),
        (entry('["a"]', 'class = "stateless"\nmerges = true'), "merges belongs to class"),
        (entry('["a"]', 'class = "joined"\ngather = ["cat"]\nmerges = 1'), "merges is no true or"),
        (entry('["a"]') * 2, "command 2: words stand there twice"),
    ],
)
def test_a_wrong_file_is_one_message(text: str, said: str, tool: Path) -> None:
    file = tool.with_name("commands.toml")
    file.write_text(text, encoding="latin-1")
    for use in (own_forms, prove_commands):
        with pytest.raises(UsageError) as refused:
            use(file)
        assert said in refused.value.message
        assert str(file) in refused.value.message
        assert refused.value.exit_code == 2


def test_no_file_and_no_commands(tool: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml cannot be read: No such file"):
        own_forms(Path("none.toml"))
    with pytest.raises(UsageError, match="there are no commands in"):
        prove_commands(None)


def test_without_hypothesis(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = commands(tool, entry('["TOOL"]'))
    monkeypatch.delitem(sys.modules, "punchlib.sh.proof", raising=False)
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(UsageError, match="needs hypothesis") as refused:
        prove_commands(file)
    assert refused.value.next_step == "pip install 'punchlib[sh]'"
