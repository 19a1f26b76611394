"""The wait script in shells that are not ours: options, IFS, aliases, traps and more, drawn.

Whatever the shell is like, a bad stage gives a status that is not 0 and is named on stderr, and
good ones alone give 0. `FUZZ=N` draws N shells.
"""

from __future__ import annotations

import os
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .conftest import DEADLINE

DRAWS = int(os.environ.get("FUZZ", "60"))
SEED = int(os.environ.get("FUZZ_SEED", "11"))

GOOD = ["true", "sleep 0.1", "grep x /dev/null", "bash -c 'exit 141'", "cat /dev/null | grep x"]
BAD = ["false", "bash -c 'exit 3'", "bash -c 'kill -9 $$'", "sort /nowhere", "no-such-tool"]
#: A bad stage that ends a little later than the rest.
LATE = ["bash -c 'sleep 0.2; exit 1'", "bash -c 'sleep 0.2; kill -TERM $$'"]

NAMES = "local printf kill wait jobs mapfile read trap unset set shopt eval return break continue"
NAMES += " test [ : true false echo mkdir rm chmod sleep cat command export declare typeset let"
WORDS = "if then else fi for while do done case esac"

OPTIONS = [f"set -{letter}" for letter in "eufvbEThCkmHa"]
OPTIONS += ["set -x", "set -o pipefail", "set -o posix", "POSIXLY_CORRECT=1", "BASH_COMPAT=4.2"]
SHOPTS = "failglob nullglob nocasematch nocaseglob extglob dotglob globstar lastpipe extdebug"
SHOPTS += " inherit_errexit xpg_echo localvar_inherit localvar_unset expand_aliases compat31"
OPTIONS += [f"shopt -s {name}" for name in SHOPTS.split()]
IFS = ["", "IFS=/", "IFS=", "IFS=$'\\n\\t'", "IFS=:", "readonly IFS=/", "IFS=5", "IFS=' 1'"]
IFS += ["IFS=0123456789"]
LOCALES = ["LC_ALL=C", "LC_ALL=xx_YY.broken", "readonly LC_ALL=C", "LANG=tr_TR.UTF-8"]
ALIASES = [f"alias {name}=false" for name in (NAMES.replace(" : ", " ") + " " + WORDS).split()]
FUNCTIONS = [f"function {name} {{ builtin return 7; }}" for name in NAMES.split()]
CLOSED = ["exec 0<&-", "exec 1>&-", "exec 2>&-", "exec 0<&- 1>&- 2>&-"]
TRAPS = ["trap 'builtin true' CHLD", "trap '' CHLD", "trap 'builtin true' DEBUG"]
TRAPS += ["trap 'builtin true' ERR RETURN EXIT", "trap 'builtin true' TERM USR1"]
SURROUNDINGS = ["TMPDIR=/nowhere", "PATH=/nowhere", "CDPATH=/", "GLOBIGNORE='*'", "cd ."]
SURROUNDINGS += ["readonly pid status text n words line timer signal grace folder stat name"]
SURROUNDINGS += ["declare -i pid status; declare -u text", "sleep 0.3", "PUNCH_FAILURE_GRACE=x"]


@dataclass
class Shell:
    """One drawn shell and its stages."""

    stages: list[str]
    bad: bool
    lines: list[str] = field(default_factory=list)
    pids: str = "$pids_to_kill"
    by_hand: bool = False
    unreadable: bool = False

    @classmethod
    def draw(cls, rng: random.Random) -> Shell:
        bad = rng.random() < 0.6
        stages = [rng.choice(GOOD) for _ in range(rng.randint(1, 4))]
        if bad:
            stages.insert(rng.randrange(len(stages) + 1), rng.choice(BAD + LATE))
        shell = cls(stages, bad, by_hand=rng.random() < 0.3)
        pools = [IFS, OPTIONS, LOCALES, ALIASES, FUNCTIONS, CLOSED, TRAPS, SURROUNDINGS]
        for pool in rng.sample(pools, rng.randint(1, 5)):
            shell.lines += rng.sample(pool, rng.randint(1, 1 if pool is IFS else 3))
        # What would keep the next line from its meaning comes last.
        shell.lines.sort(
            key=lambda line: (line.startswith(("function", "alias")), "set -k" in line)
        )
        if any("alias" in line for line in shell.lines):
            shell.lines.insert(0, "shopt -s expand_aliases")
        kind = rng.random()
        if kind < 0.05:
            shell.pids, shell.unreadable = "$pids_to_kill 1", True
        elif kind < 0.1:
            shell.pids, shell.unreadable = "$pids_to_kill x9", True
        elif kind < 0.2:
            shell.pids = "$pids_to_kill $pids_to_kill"
        if any(line.startswith("IFS=") and line[-2:] in ("=5", "1'", "89") for line in shell.lines):
            # Digits of the arguments are eaten: then the variable alone counts.
            shell.pids, shell.unreadable = "$pids_to_kill", False
        return shell

    @property
    def text(self) -> str:
        lines = ["pids_to_kill=''"]
        for stage in self.stages:
            lines += [f"{{ {stage} & }}", 'pids_to_kill="${!} ${pids_to_kill}"']
        lines += self.lines
        snapshot = (
            "{{ \\builtin set +o; \\builtin shopt -p; \\builtin trap -p CHLD DEBUG TERM USR1;"
            ' \\builtin declare -F; \\builtin alias; \\builtin printf %q "$IFS"; }} >|"$D/{}"'
        )
        wait = f"\\source runtime/wait_for_output_and_sigpipe_rest.sh {self.pids}"
        end = ["\\builtin trap - EXIT", '\\builtin exit "$internal_exec_status"']
        return "\n".join([*lines, snapshot.format("before"), wait, snapshot.format("after"), *end])


def run(top: Path, folder: Path, shell: Shell) -> str:
    """Runs it; what is wrong with the outcome, or ""."""
    folder.mkdir()
    for name in ("runtime", "aws"):
        (folder / name).symlink_to(top / name)
    (folder / "script.sh").write_text(shell.text)
    env = {"PATH": os.environ["PATH"], "D": str(folder), "LC_ALL": "C.UTF-8"}
    env["PUNCH_STATE_DIR"] = "" if shell.by_hand else str(folder / "state")
    try:
        done = subprocess.run(
            ["bash", "script.sh", "FOLDER"],
            cwd=folder,
            env=env | {"PUNCH_FAILURE_GRACE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it hangs\n{shell.text}"
    said = done.stderr.decode(errors="replace")
    wrong = []
    if shell.bad or shell.unreadable:
        if done.returncode == 0:
            wrong.append("a failure gives 0")
        if "wait: " not in said and not any("2>&-" in line for line in shell.lines):
            wrong.append("it is not named")
    elif done.returncode:
        wrong.append(f"good stages give {done.returncode}")
    before, after = folder / "before", folder / "after"
    if not before.exists():  # its own lines have ended it (`set -e`)
        return "" if done.returncode else "it did not get to the wait script"
    if not after.exists() or before.read_text() != after.read_text():
        wrong.append("the shell is not what it was")
    return "; ".join(wrong) and f"{'; '.join(wrong)}\n{shell.text}\n--- stderr\n{said[-3000:]}"


@pytest.mark.parametrize("part", range(4))
def test_drawn_shells(top: Path, tmp_path: Path, part: int) -> None:
    rng = random.Random(SEED + part)
    shells = [Shell.draw(rng) for _ in range(DRAWS // 4)]
    with ThreadPoolExecutor(3) as pool:
        said = list(pool.map(lambda n: run(top, tmp_path / str(n), shells[n]), range(len(shells))))
    wrong = [text for text in said if text]
    assert not wrong, f"{len(wrong)} of {len(shells)}:\n\n" + "\n\n".join(wrong[:3])
