"""Commands of a user's own: `~/.config/punch/commands.toml` ($XDG_CONFIG_HOME), or any file.

    [[command]]
    words = ["mytool", "--strip"]    # these words, exactly
    class = "stateless"              # each line by itself; or "joined"
    gather = ["sort", "-m"]          # with "joined": what makes one of the pieces' outputs
    merges = true                    # it takes them as files, in order; else one after the other
    why = "each line by itself"      # for --explain

They run on pieces once they have been proven on this machine (`punch sh --prove`), and as long as
neither the file nor the programs have changed since. The proofs are in `proven.json` under
$XDG_STATE_HOME/punch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from punchlib.errors import UsageError
from punchlib.runs.run_folder import state_home
from punchlib.sh.forms import EACH_LINE, Form, Gather, Split

_STATELESS, _JOINED = "stateless", "joined"
_KEYS = {"words": list, "class": str, "gather": list, "merges": bool, "why": str}
_KINDS = {list: "list", str: "string", bool: "true or false"}
_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One command of the file.

    Attributes:
        form: as it runs once it is proven.
        digest: of all that a proof depends on: the file, the words, the programs.
    """

    form: Form
    digest: str


def default_file() -> Path:
    """Where the user's commands are; it need not exist."""
    config = os.environ.get("XDG_CONFIG_HOME", "")
    # The specification: a path that is not absolute counts as unset.
    base = Path(config) if config.startswith("/") else Path.home() / ".config"
    return base / "punch/commands.toml"


def load(file: Path) -> list[Entry]:
    """Reads a file of commands.

    Raises:
        UsageError: it cannot be read or says what cannot be; names the file and the key.
    """
    try:
        content = file.read_bytes()
        parsed = tomllib.loads(content.decode())
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"{file} is no valid UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file} is no TOML: {error}") from None
    if strange := sorted(set(parsed) - {"command"}):
        raise UsageError(f"{file}: {strange[0]} is not known", next_step="write [[command]]")
    tables = parsed.get("command", [])
    if not isinstance(tables, list):
        raise UsageError(f"{file}: command is no list", next_step="write [[command]]")
    sha = hashlib.sha256(content).hexdigest()
    entries: dict[tuple[str, ...], Entry] = {}
    for number, table in enumerate(tables, 1):
        form = _Table(file, number, table).form()
        if form.words in entries:
            raise UsageError(f"{file}: command {number}: words stand there twice")
        entries[form.words] = Entry(form, _digest(form, sha))
    return list(entries.values())


class _Table:
    def __init__(self, file: Path, number: int, table: Any) -> None:
        self._where = f"{file}: command {number}"
        if not isinstance(table, dict):
            self._refuse("is no table")
        self._table: Mapping[str, Any] = table
        for key, value in table.items():
            kind = _KEYS.get(key)
            if kind is None:
                self._refuse(f"{key} is not known", f"the keys are {', '.join(_KEYS)}")
            if not isinstance(value, kind):
                self._refuse(f"{key} is no {_KINDS[kind]}")

    def _refuse(self, why: str, next_step: str = "") -> NoReturn:
        raise UsageError(f"{self._where}: {why}", next_step=next_step)

    def _words(self, key: str) -> tuple[str, ...]:
        words = self._table.get(key, [])
        if (
            not words
            or not words[0]
            or not all(isinstance(w, str) and "\0" not in w for w in words)
        ):
            self._refuse(f"{key} is no list of words", f'write {key} = ["NAME", …]')
        return tuple(words)

    def form(self) -> Form:
        words, kind = self._words("words"), self._table.get("class")
        if kind not in (_STATELESS, _JOINED):
            self._refuse(f'class is neither "{_STATELESS}" nor "{_JOINED}"')
        why = self._table.get("why", EACH_LINE if kind == _STATELESS else "joined")
        if kind == _JOINED:
            gather = Gather(self._words("gather"), self._table.get("merges", False))
            return Form(words, Split(gather), why, known=False)
        for key in ("gather", "merges"):
            if key in self._table:
                self._refuse(f'{key} belongs to class = "{_JOINED}"')
        # Nobody has said whether it leaves something of each piece.
        return Form(words, Split(total=False), why, known=False)


def _digest(form: Form, file_sha: str) -> str:
    gather = form.split.gather if form.split else None
    programs = [form.words[0], *(gather.words[:1] if gather else ())]
    facts = [_VERSION, file_sha, form.words, [_program_sha(name) for name in programs]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _program_sha(name: str) -> str:
    found = shutil.which(name)
    try:
        return hashlib.sha256(Path(found).read_bytes()).hexdigest() if found else ""
    except OSError:
        return ""


def forms(entries: Iterable[Entry]) -> dict[tuple[str, ...], Form]:
    """What `plan.make` takes: those without a valid proof run in one piece."""
    known = proven()
    return {
        entry.form.words: entry.form
        if entry.digest in known
        else Form(entry.form.words, None, "not proven: punch sh --prove", known=False)
        for entry in entries
    }


def _proofs() -> Path:
    return state_home() / "punch/proven.json"


def proven() -> dict[str, str]:
    """Digest -> the command, for people. What cannot be read proves nothing."""
    with contextlib.suppress(OSError, ValueError):
        kept = json.loads(_proofs().read_bytes())
        if isinstance(kept, dict) and kept.get("version") == _VERSION:
            found = kept.get("proven")
            return dict(found) if isinstance(found, dict) else {}
    return {}


def keep(entry: Entry) -> None:
    """Writes down that it is proven.

    Raises:
        UsageError: it cannot be written.
    """
    file = _proofs()
    kept = {**proven(), entry.digest: " ".join(entry.form.words)}
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.write_text(json.dumps({"version": _VERSION, "proven": kept}, indent=1) + "\n")
        fresh.replace(file)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error
